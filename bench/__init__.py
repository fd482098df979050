"""Measuring NeSyLoRA itself: what it costs, and which policy decides well."""
