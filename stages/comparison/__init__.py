"""Every student by every measure in one table, each cell with its interval and what it cannot be told from."""
