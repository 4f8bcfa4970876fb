"""A policy as others meet it: its model card, and both on the Hugging Face Hub by LeRobot's conventions."""
