"""``pirl-eval --aggregate``: evaluations of several training runs in one report."""
