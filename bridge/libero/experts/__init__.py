"""Scripted experts for LIBERO's pick-and-place tasks: they see where things are, for policies that do not."""
