"""Which policy decides well: tasks, policies and seeds at equal budget, and their comparison."""
