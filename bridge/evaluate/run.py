"""The evaluation itself: one ``lerobot-eval`` a group of tasks, each result kept as soon as it exists.

A group's folder counts as finished once ``result.json`` is in it, which names the settings it was made with
and the hash of the ``eval_info.json`` beside it. Groups and their command lines depend on the settings alone,
so that an evaluation that was interrupted ends with the result it would have had.
"""

from __future__ import annotations

import fcntl
import logging
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.evaluate.process import LerobotEval
from bridge.evaluate.progress import Progress
from bridge.evaluate.results import EVAL_INFO, TaskEpisode, read_episodes
from bridge.evaluate.settings import Group, Settings, fingerprint
from pirl_jax.files import digest, read_json, tail, write_json

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
TASKS = "tasks"
RESULT = "result.json"
LOG = "lerobot-eval.log"

_POLL_SECONDS = 0.5


_HOPELESS = 3
"""Groups that fail before one has succeeded: what they have in common is then at fault."""


class TasksFailedError(RuntimeError):
    """``lerobot-eval`` failed on some groups; says on which and why.

    Args:
        failed: group → what was wrong with it.
        finished: the results of the others.
        left: groups that were not evaluated.
    """

    def __init__(self, failed: Mapping[Group, str], finished: list[Finished], left: int) -> None:
        given_up = f"; the other {left} were not tried" * bool(left)
        super().__init__(f"{len(failed)} groups of tasks failed{given_up}.\n" + "\n".join(failed.values()))
        self.failed = {str(group): why.splitlines()[0].rstrip(":") for group, why in failed.items()}
        self.finished = finished


@dataclass(frozen=True)
class Finished:
    """A group's result."""

    group: Group
    episodes: tuple[TaskEpisode, ...]
    command: str
    seconds: float


def evaluate(
    settings: Settings,
    identity: dict[str, Any],
    groups: Sequence[Group],
    output_dir: Path,
    processes: int = 1,
) -> list[Finished]:
    """Evaluate all groups that the folder does not hold yet, and return the results of all.

    Args:
        settings: Of all groups.
        identity: ``settings.identity()``.
        groups: What to evaluate.
        output_dir: Made if missing; ``tasks/`` in it keeps the results.
        processes: How many ``lerobot-eval`` run at a time.

    Raises:
        ValueError: The folder holds results of other settings.
        TasksFailedError: ``lerobot-eval`` failed on some groups, and the others are finished; or on the first
            few. Results so far are kept.
        BlockingIOError: Another evaluation is writing to the folder.
        KeyboardInterrupt: Passed on after the processes have been ended.
    """
    with _lock(output_dir):
        _claim(output_dir, identity)
        name = fingerprint(identity)
        found = {group: _load(output_dir, group, settings, name) for group in groups}
        waiting = [group for group in groups if found[group] is None]
        progress = Progress(groups, waiting, settings)
        running: dict[Group, tuple[LerobotEval, float]] = {}
        failed: dict[Group, str] = {}
        try:
            while waiting or running:
                if len(failed) >= _HOPELESS and not any(found.values()):
                    break
                while waiting and len(running) < processes:
                    group = waiting.pop(0)
                    running[group] = (_start(output_dir, group, settings), time.monotonic())
                time.sleep(_POLL_SECONDS)
                for group, (process, started) in list(running.items()):
                    if (status := process.poll()) is not None:
                        del running[group]
                        seconds = time.monotonic() - started
                        if why := _finish(output_dir, group, process, status, settings, name, seconds):
                            failed[group] = why
                            progress.failed(group, why)
                            continue
                        found[group] = finished = _load(output_dir, group, settings, name)
                        assert finished is not None
                        progress.finished(group, finished.episodes, seconds)
                progress.show(
                    {group: (process.rollouts, process.won) for group, (process, _) in running.items()}
                )
        finally:
            progress.close()
            for process, _ in running.values():
                process.stop()
    results = [finished for finished in found.values() if finished is not None]
    if failed:
        raise TasksFailedError(failed, results, len(groups) - len(results) - len(failed))
    return results


def _start(output_dir: Path, group: Group, settings: Settings) -> LerobotEval:
    folder = output_dir / TASKS / group.name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that did not finish
    folder.mkdir(parents=True)
    return LerobotEval(settings.command(group, folder), folder / LOG)


def _finish(
    output_dir: Path,
    group: Group,
    process: LerobotEval,
    status: int,
    settings: Settings,
    name: str,
    seconds: float,
) -> str | None:
    """Keep a group's result; return what is wrong with it, if anything."""
    folder = output_dir / TASKS / group.name
    info = folder / EVAL_INFO
    try:
        if status:
            raise ValueError(f"exit status {status}")
        read_episodes(info, group, settings)
    except ValueError as error:
        return f"lerobot-eval failed on {group} ({error}); the end of {process.log}:\n{tail(process.log)}"
    result = {
        "fingerprint": name,
        "command": shlex.join(process.command),
        "seconds": round(seconds, 1),
        "eval_info_sha256": digest(info),
    }
    write_json(folder / RESULT, result)
    return None


def _load(output_dir: Path, group: Group, settings: Settings, name: str) -> Finished | None:
    """Return a group's result; None if there is none, or it cannot be trusted."""
    folder = output_dir / TASKS / group.name
    if not (folder / RESULT).exists():
        return None
    try:
        result = read_json(folder / RESULT)
        if result.get("fingerprint") != name:
            raise ValueError(f"{folder / RESULT} is of other settings")
        episodes = read_episodes(folder / EVAL_INFO, group, settings)
        if result.get("eval_info_sha256") != digest(folder / EVAL_INFO):
            raise ValueError(f"{folder / EVAL_INFO} has changed since it was written")
        return Finished(group, tuple(episodes), str(result["command"]), float(result["seconds"]))
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s will be evaluated again: %s", group, error)
        return None


def _claim(output_dir: Path, identity: dict[str, Any]) -> None:
    """Write the identity into a folder without results, or compare it with the one that is there."""
    file = output_dir / SETTINGS
    if not any(output_dir.glob(f"{TASKS}/*/{RESULT}")):  # nothing that could be mixed
        write_json(file, identity)
        return
    if not file.exists():
        raise ValueError(
            f"{file} is missing, so what {output_dir} holds is unknown. Use another --output_dir."
        )
    before = read_json(file)
    changed = [
        f"{key} was {before.get(key)!r}, now {identity.get(key)!r}"
        for key in sorted(before.keys() | identity.keys())
        if before.get(key) != identity.get(key)
    ]
    if changed:
        raise ValueError(
            f"{output_dir} holds results of other settings: {'; '.join(changed)}. Use another --output_dir."
        )


@contextmanager
def _lock(output_dir: Path) -> Iterator[None]:
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another pirl-eval is writing to {output_dir}.") from error
        yield
