"""The nodes of the graph: observe, plan, approve, act, judge, remember."""
