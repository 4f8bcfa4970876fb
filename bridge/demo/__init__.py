"""One command that shows the whole project at work: demonstrations, warm start, π-RL, evaluation."""
