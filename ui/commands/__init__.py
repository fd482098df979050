"""The commands that answer at once: doctor, runs, eval, check-llm."""
