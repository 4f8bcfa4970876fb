"""Where a policy is random, how a chunk is sampled, and how likely it was."""
