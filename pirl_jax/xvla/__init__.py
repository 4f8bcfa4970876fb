"""X-VLA (arXiv 2510.10274) in Flax, numerically equal to LeRobot's torch policy."""
