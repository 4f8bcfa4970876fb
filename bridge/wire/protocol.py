"""What actor and learner agree on beside LeRobot's own messages and the action row (``record.py``)."""

MESSAGE_ID_KEY = "pirl-message-id"
"""Metadata key of a ``SendTransitions`` call that carries exactly one message."""

STEP_INFO_HEADER = ("executed", "success", "seed_low", "seed_high", "task", "init_state")
"""A chunk's ``discrete_penalty``, which LeRobot's actor passes on: these numbers, then each step's reward."""
