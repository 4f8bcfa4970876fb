"""What a learner's command line says, read by LeRobot's own parser in a process of its own.

``python -m bridge.launch.facts --config_path=cfg.json …`` prints one JSON object. Reading takes torch and
LeRobot, 0.9 GB, which go with this process; the one that stays beside the run needs neither.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pirl_jax.command import run_command
from pirl_jax.files import last_line
from pirl_jax.recipe import LaunchConfig, SecurityConfig

_MARK = "facts: "
"""Before the object: whatever is imported may print, too."""


@dataclass(frozen=True)
class Facts:
    """What the launch must know of a run's config."""

    output_dir: str
    updates: int
    """Of the whole run."""
    host: str
    port: int
    max_actors: int
    base: str | None
    """Folder or hub id that the run of a checkpoint began with; None: it begins now, or does not say."""
    launch: LaunchConfig
    policy_servers: tuple[tuple[str, int], ...] = ()
    """Host and port of each process of its own that acts for the actors."""
    security: SecurityConfig = field(default_factory=SecurityConfig)


def read_facts(arguments: Sequence[str]) -> Facts:
    """Return what a learner of these arguments would be told.

    Raises:
        ValueError: It would refuse them; says why.
    """
    command = [sys.executable, "-m", "bridge.launch.facts", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        line = last_line(done.stderr)
        if not line.startswith("error: "):  # not foreseen, and told by Python
            sys.stderr.write(done.stderr)
        raise ValueError(line.removeprefix("error: "))
    sys.stderr.write(done.stderr)  # what was set aside, or warned of
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    values = json.loads(line.removeprefix(_MARK))
    settings: dict[str, Any] = values["launch"]
    for name, value in settings.items():
        settings[name] = tuple(value) if isinstance(value, list) else value
    servers = tuple((host, port) for host, port in values["policy_servers"])
    security = SecurityConfig(**values["security"])
    return Facts(
        **values | {"launch": LaunchConfig(**settings), "policy_servers": servers, "security": security}
    )


def _print(cfg: Any) -> None:
    from bridge.plugin.recipe_config import PiRLConfig
    from bridge.trust.dialer import Dialer
    from bridge.trust.listener import check

    recipe = cfg.algorithm
    if not isinstance(recipe, PiRLConfig):
        raise ValueError(
            f"pirl-launch is for algorithm.type=pi_rl; got {recipe.type if recipe else None!r}. "
            "For LeRobot's own algorithms run python -m lerobot.rl.learner and lerobot.rl.actor."
        )
    base = None
    if cfg.resume:
        from bridge.weights.saved import begun_with

        base = begun_with(Path(cfg.checkpoint_path))
    apart = recipe.inference == "served" and recipe.serve.mode == "process"
    servers = range(recipe.serve.replicas if apart else 0)
    address = recipe.actor_learner_config
    for host in (address.learner_host, *([recipe.serve.host] if apart else [])):
        check(recipe.security, host)
        Dialer(recipe.security).check(f"{host}:{address.learner_port}")
    facts = Facts(
        output_dir=str(cfg.output_dir),
        updates=cfg.steps,
        host=address.learner_host,
        port=address.learner_port,
        max_actors=recipe.max_actors,
        base=base,
        policy_servers=tuple((recipe.serve.host, recipe.serve.port + number) for number in servers),
        launch=recipe.launch,
        security=recipe.security,
    )
    print(_MARK + json.dumps(asdict(facts)))


def _config_class() -> type:
    logging.getLogger("lerobot").setLevel(logging.ERROR)  # the learner and the actors have the same to say
    from lerobot.rl.train_rl import TrainRLServerPipelineConfig

    from bridge import plugin
    from bridge.plugin.command_line import prepare

    plugin.register()
    prepare()
    return TrainRLServerPipelineConfig


if __name__ == "__main__":
    run_command(_print, _config_class, only_looks=True)
