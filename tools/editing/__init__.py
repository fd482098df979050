"""Rewriting the prompt: by rules, by TextGrad, and by GEPA."""
