"""What travels between actors and learner. Nothing in the shared formats imports JAX."""
