"""Rewriting the prompt: by rules, and by TextGrad."""
