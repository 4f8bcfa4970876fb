"""What is learned from collected episodes: advantages, losses, one update."""
