"""What is remembered: the run folder, the prompt memory over all runs, and prompts turned into training rows."""
