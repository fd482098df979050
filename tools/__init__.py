"""The hands: the model under adaptation, the two levers, the classifier and the external LLM."""
