"""Example tasks that ship: a folder each, with its task.yaml beside its rows."""
