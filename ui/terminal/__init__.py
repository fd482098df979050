"""A run in the terminal: the live view and the chat."""
