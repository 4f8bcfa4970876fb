"""X-VLA's weights: torch's names and Flax's, files, exports."""
