"""π-RL for flow-matching vision-language-action policies: the JAX side.

Nothing in this package imports torch, lerobot, grpc or ``bridge``, except the commands (``learner.py``,
``sft.py``, ``doctor.py``), which import ``bridge`` inside their functions, and ``command.py``, which imports
lerobot inside its own.
"""

__version__ = "0.1.0"
