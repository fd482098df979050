"""What is kept: the folder of a run, and the memory over all runs (prompts, rewrites, experience, LLM replies)."""
