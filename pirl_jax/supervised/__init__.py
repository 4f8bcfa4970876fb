"""Supervised training on demonstrations: the warm start."""
