"""``pirl-eval``: LeRobot's unmodified ``lerobot-eval`` over LIBERO, resumable, with one report."""
