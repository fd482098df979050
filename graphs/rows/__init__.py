"""Which rows a node looks at, and what the run's own rows say about its levers."""
