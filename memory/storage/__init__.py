"""Files that survive a kill: atomic writes, SQLite, locks."""
