"""Runs from the command line: worked on here or in the background, followed, and steered."""
