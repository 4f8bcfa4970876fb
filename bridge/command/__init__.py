"""``pirl``: every command of the project by one name, which loads nothing until it knows which is meant."""
