"""What to start for a command line: the arguments of learner and actors, now and after a crash."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bridge.launch.facts import Facts, read_facts
from pirl_jax.files import read_json
from pirl_jax.recipe import LaunchConfig, SecurityConfig
from pirl_jax.run_folder.layout import TRAIN_CONFIG, last_policy, mend, read_step
from pirl_jax.run_folder.resuming import CONFIG, RESUME, RESUMES, plainly

AUTO = "--resume=auto"
_ADDRESS, _SERVERS = "algorithm.actor_learner_config.learner_", "algorithm.serve."
_PLUGIN = "--env.discover_packages_path=bridge.plugin"
_CONFIG, _OUTPUT, _RESUME, _POLICY = CONFIG, "--output_dir=", RESUME, "--policy.path="
_STEPS = "--steps="
_ROOM = 1 << 16
"""Bytes, for the first lines of a few logs."""


@dataclass(frozen=True)
class Plan:
    """A run's processes."""

    output_dir: Path
    """The learner's."""
    updates: int
    """Of the whole run."""
    address: str
    """Where the learner listens, ``host:port``."""
    settings: LaunchConfig
    given: tuple[str, ...]
    """The command line, without what is the launch's own."""
    learner: tuple[str, ...]
    """Arguments of the first learner."""
    actor: tuple[str, ...]
    """Arguments of every actor, but for its number and its folder."""
    policy_servers: tuple[str, ...] = ()
    """Address of each process of its own that acts for the actors."""
    begun: int | None = None
    """The update that it goes on from; None: it begins."""
    security: SecurityConfig = field(default_factory=SecurityConfig)

    @property
    def policy_server(self) -> tuple[str, ...]:
        """Arguments of every policy server, but for its number: an actor's, less the plugin."""
        return _without(self.actor, _PLUGIN.partition("=")[0])

    @property
    def folder(self) -> Path:
        """Logs, and the actors' folders: beside the run's own, which LeRobot wants to make itself."""
        return _launch_folder(self.output_dir)

    def learner_again(self) -> tuple[str, ...]:
        """Return the arguments of a learner in the place of one that was killed.

        It goes on from the last checkpoint. Before the first it begins anew, and moves out of its way what
        the killed one has left.
        """
        config = saved_config(self.output_dir)
        return self.learner if config is None else _resumed(self.given, config, self.output_dir)


def prepare(arguments: Sequence[str]) -> Plan:
    """Read a command line of ``pirl-launch`` and make sure that the run can be started.

    Args:
        arguments: LeRobot's, and the launch's own ``--actors=N``, ``--backend=…`` and ``--resume=auto``.

    Raises:
        ValueError: It cannot; says why and what to do.
    """
    given, learner = _read(arguments)
    facts = read_facts(learner)
    _check(facts)
    output_dir = Path(facts.output_dir)
    _check_room(_launch_folder(output_dir))
    return Plan(
        output_dir=output_dir,
        updates=facts.updates,
        address=f"{facts.host}:{facts.port}",
        settings=facts.launch,
        given=given,
        learner=(*_without(learner, _OUTPUT), f"{_OUTPUT}{output_dir}"),
        actor=_actor_arguments(given, learner, facts),
        policy_servers=tuple(f"{host}:{port}" for host, port in facts.policy_servers),
        begun=None if (config := _resumed_config(learner)) is None else read_step(config.parents[1]),
        security=facts.security,
    )


def updates_done(arguments: Sequence[str]) -> tuple[int, Path] | None:
    """Return updates and folder of a run that a command line would resume, and that is done already.

    LeRobot's parser, which takes half a minute to load and to start a learner with, is not asked.

    Raises:
        ValueError: The launch's own arguments do not fit; says why. For others the parser has words.
    """
    _, learner = _read(arguments)
    given = _value(learner, _CONFIG)
    if given is not None and given.endswith(".json") and not Path(given).exists():
        raise ValueError(f"there is no file --config_path={given}.")
    config = _resumed_config(learner)
    if config is None:
        return None
    try:
        saved = json.loads(config.read_text())
        steps = int(_value(learner, _STEPS) or saved["steps"])
        done = read_step(config.parents[1]) >= steps
        return (steps, Path(_value(learner, _OUTPUT) or saved["output_dir"])) if done else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a command line without what is the launch's own, and its learner's."""
    arguments = plainly(arguments)
    given = tuple(_long(argument) for argument in arguments if argument != AUTO)
    if AUTO not in arguments:
        return given, given
    output_dir = _output_dir(given)
    given = _without(given, _RESUME)
    config = saved_config(output_dir)
    return given, given if config is None else _resumed(given, config, output_dir)


def _resumed_config(learner: Sequence[str]) -> Path | None:
    """Return the config of the checkpoint that a learner goes on from; None: it begins."""
    value = _value(learner, _CONFIG)
    if RESUMES not in learner or value is None:
        return None
    config = Path(value)
    return config / TRAIN_CONFIG if config.is_dir() else config


def saved_config(output_dir: Path) -> Path | None:
    """Return the config in a run's last checkpoint; None where there is no checkpoint."""
    last = last_policy(output_dir) / TRAIN_CONFIG
    mend(last)
    return last if last.exists() else None


def _resumed(given: Iterable[str], config: Path, output_dir: Path) -> tuple[str, ...]:
    """Return the arguments of a learner that goes on from a checkpoint, which says what policy that is."""
    rest = _without(given, _CONFIG, _RESUME, _OUTPUT, _POLICY)
    return (f"{_CONFIG}{config}", RESUMES, f"{_OUTPUT}{output_dir}", *rest)


def _actor_arguments(given: Sequence[str], learner: Sequence[str], facts: Facts) -> tuple[str, ...]:
    """Return what all actors are started with.

    They begin from the run's base whatever the learner resumes from, and from the config that it reads. A
    checkpoint's is copied: its folder may be gone when an actor is started again.
    """
    plugin = [] if any(argument.startswith(_PLUGIN.partition("=")[0]) for argument in given) else [_PLUGIN]
    if RESUMES not in learner:
        return (*_without(given, _OUTPUT, _RESUME), *plugin)
    config = _resumed_config(learner) or Path()
    copy = _launch_folder(Path(facts.output_dir)) / TRAIN_CONFIG
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(config, copy)
    base = _value(given, _POLICY) or facts.base
    policy = [] if base is None else [f"{_POLICY}{base}"]
    return (f"{_CONFIG}{copy}", *policy, *_without(given, _CONFIG, _RESUME, _OUTPUT, _POLICY), *plugin)


def _check(facts: Facts) -> None:
    if facts.launch.actors > facts.max_actors:
        raise ValueError(
            f"algorithm.launch.actors={facts.launch.actors} is more than the learner serves: raise "
            f"algorithm.max_actors={facts.max_actors}."
        )
    if facts.launch.server_devices and not facts.policy_servers:
        raise ValueError(
            f"algorithm.launch.server_devices={facts.launch.server_devices} would do nothing: there are "
            "policy servers of their own only with inference=served and serve.mode=process."
        )
    with ExitStack() as listening:  # all at once: a policy server may have been given the learner's port
        bind = facts.security.bind
        listening.enter_context(_listening(_ADDRESS, bind or facts.host, facts.port))
        # On another node of a cluster it says so itself.
        for host, port in facts.policy_servers if facts.launch.backend == "local" else ():
            listening.enter_context(_listening(_SERVERS, bind or host, port))


def _check_room(folder: Path) -> None:
    """Make the folder of a launch, and a file in it for a moment.

    Raises:
        ValueError: Nothing can be written there; says why and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except OSError as error:
        raise ValueError(
            f"nothing can be written to {folder} ({error.strerror}). Give another --output_dir, or make room."
        ) from error


def _listening(prefix: str, host: str, port: int) -> socket.socket:
    """Listen at an address for as long as the context lasts.

    Args:
        prefix: Of the settings' names, before ``host`` and ``port``.
        host: Name or address.
        port: At it.

    Raises:
        ValueError: It cannot; says why and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        remedy = (
            f"Set --{prefix}host to a name or an address of this machine, or --algorithm.security.bind where "
            "others find it by another."
        )
        if error.errno == errno.EADDRINUSE:
            remedy = f"Another run may be there: stop it, or give --{prefix}port=N, a free port."
        raise ValueError(f"Cannot listen on {host}:{port} ({error.strerror}). {remedy}") from error


def _output_dir(given: Sequence[str]) -> Path:
    """Return the run's folder, before LeRobot's parser is asked: what it is asked depends on it.

    Raises:
        ValueError: Neither command line nor config says it, or the config cannot be read.
    """
    place, config = _value(given, _OUTPUT), Path(_value(given, _CONFIG) or "")
    if place is None and config.suffix == ".json" and config.is_file():
        place = read_json(config).get("output_dir")
    if not place or not isinstance(place, str):
        raise ValueError(f"{AUTO} needs the folder to look for a checkpoint in: give --output_dir=…")
    return Path(place)


def _launch_folder(output_dir: Path) -> Path:
    if output_dir.name in ("", ".."):  # as of "."
        output_dir = output_dir.resolve()
    return output_dir.with_name(f"{output_dir.name}.launch")


def _long(argument: str) -> str:
    name, _, value = argument.partition("=")
    if name == "--backend":
        return f"--algorithm.launch.backend={value}"
    if name != "--actors":
        return argument
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"--actors must be a number of at least 1; got {value!r}.")
    return f"--algorithm.launch.actors={value}"


def _without(arguments: Iterable[str], *beginnings: str) -> tuple[str, ...]:
    return tuple(argument for argument in arguments if not argument.startswith(beginnings))


def _value(arguments: Iterable[str], beginning: str) -> str | None:
    return next((text.removeprefix(beginning) for text in arguments if text.startswith(beginning)), None)
