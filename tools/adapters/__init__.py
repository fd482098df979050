"""Adapters on the model: attached by id, shared by runs, read from and written to files."""
