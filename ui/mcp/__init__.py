"""`nesylora mcp`: the runs as tools of other agents, over the Model Context Protocol."""
