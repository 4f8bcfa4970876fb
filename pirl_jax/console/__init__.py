"""What a person at a terminal, or behind a log file, sees of a command while it works."""
