"""Episodes as films: of training, and many of an evaluation in one."""
