"""The loop around the updates, and what it leaves on disk."""
