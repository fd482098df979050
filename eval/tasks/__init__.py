"""From a task.yaml and its files to a task: rows of three splits, and scorers."""
