"""Scripted experts for LIBERO's pick-and-place tasks: they see where things are, and demonstrate for a policy."""
