"""Tuning the weights: LoRA training, adapters, memory."""
