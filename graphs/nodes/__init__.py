"""The nodes of the graph, each a function of the state and the run's services that returns what changed."""
