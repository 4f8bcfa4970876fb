"""``python -m bridge.demo --quick``: RL alone, from a clone that comes with the package, in some minutes."""
