"""The model under adaptation: loading it, its chat template, answers and likelihoods."""
