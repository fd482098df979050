"""A conversation about a run: what a user says, in commands or in plain words, becomes what the run is to do."""
