"""The judge: tasks, scorers, the runner and the statistics. No tool may touch it."""
