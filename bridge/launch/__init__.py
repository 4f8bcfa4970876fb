"""``pirl-launch``: a run's learner and stock actors as processes, started, watched and started again."""
