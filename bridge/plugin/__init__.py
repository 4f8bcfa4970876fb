"""The actor's side: LeRobot loads it by ``--env.discover_packages_path=bridge.plugin``.

LeRobot imports this package and then every submodule of it, and each submodule registers what it defines:
``algorithm.type=pi_rl``, ``env.type=chunked_gym`` and ``env.type=libero``, ``pirl/PandaPickCube-v0``.
Programs that are not started through LeRobot's command line call :func:`register`. The package itself imports
nothing, so that the environment can be used without LeRobot's training stack. No JAX anywhere.
"""

from importlib import import_module


def register() -> None:
    """Import every submodule, which registers everything; more than once does no harm."""
    for name in (
        "panda",
        "recipe_config",
        "gym_config",
        "libero_config",
        "processors",
        "algorithm",
        "parsing",
        "pipeline",
    ):
        import_module(f"{__name__}.{name}")
