"""What a run found, as a bundle that others use without NeSyLoRA: adapter, prompt, chat template, card."""
