"""The faces: command line, terminal view, web pages and the report."""
