"""A conversation about a run for any face: what is heard, and what is answered, as lines of text."""
