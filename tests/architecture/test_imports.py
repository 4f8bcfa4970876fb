"""Which side may import what, proven in a fresh interpreter."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pirl_jax

PACKAGE = Path(pirl_jax.__file__).parent


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run(blocked, names):
    program = textwrap.dedent(
        f"""
        import importlib, sys
        for name in {blocked!r}:
            sys.modules[name] = None
        for name in {names!r}:
            try:
                importlib.import_module(name)
            except ImportError as error:
                sys.exit(f"{{name}}: {{error}}")
        """
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


def test_every_module_but_the_learner_imports_without_torch_lerobot_grpc_and_bridge():
    names = [name for name in modules() if name not in ("pirl_jax.learner", "pirl_jax.doctor")]
    assert "pirl_jax.update.update" in names
    result = run(["torch", "lerobot", "grpc", "bridge"], names)
    assert result.returncode == 0, result.stderr


def test_what_the_actor_shares_with_the_learner_imports_without_jax():
    result = run(
        ["jax", "jaxlib", "flax", "optax", "orbax"],
        [
            "pirl_jax",
            "pirl_jax.recipe",
            "pirl_jax.trees",
            "pirl_jax.likelihood.modes",
            "pirl_jax.xvla.channels",
            "pirl_jax.likelihood.gripper",
        ],
    )
    assert result.returncode == 0, result.stderr
