"""What our commands read off LeRobot's configs."""
