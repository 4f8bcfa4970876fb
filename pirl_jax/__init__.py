"""π-RL for flow-matching vision-language-action policies: the JAX side.

Nothing in this package imports torch, lerobot, grpc or ``bridge``, except the two composition roots
(``learner.py``, ``sft.py``), which import ``bridge`` inside ``main()``.
"""

__version__ = "0.1.0"
