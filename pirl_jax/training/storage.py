"""What a run takes of its host's memory and of its disk, in bytes, known before it starts."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pirl_jax.recipe import Recipe
from pirl_jax.run_folder.layout import CHECKPOINTS
from pirl_jax.run_folder.retention import Retention
from pirl_jax.training.budget import GIB, allowed, budget_of_host, readable
from pirl_jax.training.kept import keeps
from pirl_jax.training.needs import lines_of
from pirl_jax.training.parts import capacity_of
from pirl_jax.training.plan import Plan, size_of

KEPT = "the state before an update"


@dataclass(frozen=True)
class Storage:
    """Of a run.

    Attributes:
        memory: what lies in host memory, by what it is.
        mapped: bytes of encoded observations that lie in files instead (``rollout.shelf``).
        checkpoints: bytes of the output folder, by what they are.
    """

    memory: Mapping[str, int]
    mapped: int
    checkpoints: Mapping[str, int]


def rows_bound(rows_gb: float | None) -> int:
    """Return how many bytes of encoded observations lie in memory; ``rows_gb`` None: half of what is free."""
    return int(budget_of_host().size / 2 if rows_gb is None else rows_gb * GIB)


def storage(
    plan: Plan, bound: int, checkpoints: Mapping[str, int] = MappingProxyType({}), on_cpu: bool = False
) -> Storage:
    """Return what a run takes; nothing is compiled.

    Args:
        plan: of the run.
        bound: ``rows_bound``.
        checkpoints: ``checkpoint_sizes``; none if nothing is saved.
        on_cpu: whether the device is the host.
    """
    recipe = plan.parts.recipe
    stale, capacity = recipe.rollout.max_staleness, capacity_of(recipe)
    # Those of the next update arrive while this one learns from its own.
    rows = (1 + (stale > 0)) * capacity * size_of(plan.features(1))
    held = min(rows, bound)
    memory = {
        "encoded observations": held,
        "policies as pushed": (1 + (stale + 1 if stale else 0)) * plan.pushed,
    }
    if stale:
        memory["episodes that came early"] = stale * capacity * size_of(plan.images(1))
    if keeps(recipe.watchdog, size_of(plan.state), on_cpu):
        memory[KEPT] = size_of(plan.state)
    if checkpoints and not on_cpu:  # where it is read from where it lies
        memory["the state that is being saved"] = size_of(plan.state)
    return Storage(memory, rows - held, checkpoints)


def settled(storage: Storage, plan: Plan, device: int, actors: int) -> tuple[Storage, Recipe]:
    """Settle whether a run on a CPU keeps the state before an update, by what is left for it.

    Args:
        storage: of the run.
        plan: whose recipe may leave it open (``watchdog.keep=auto``).
        device: bytes of what lies on the device, the host's memory, without what is in ``storage``.
        actors: bytes that the actors beside it take.

    Returns:
        What the run takes then, and its recipe, which says ``always`` or ``never``.
    """
    recipe, size = plan.parts.recipe, size_of(plan.state)
    left = allowed(budget_of_host()) - sum(storage.memory.values()) - device - actors
    keep = KEPT in storage.memory or keeps(recipe.watchdog, size, True, left)
    if keep:
        storage = dataclasses.replace(storage, memory={**storage.memory, KEPT: size})
    watchdog = dataclasses.replace(recipe.watchdog, keep="always" if keep else "never")
    return storage, dataclasses.replace(recipe, watchdog=watchdog)


def table(storage: Storage, shared: bool = False) -> list[str]:
    """Say what a run takes of its host and its disk, line by line.

    Args:
        storage: of the run.
        shared: whether host memory was told with the device's.
    """
    lines = [] if shared else ["host memory", *lines_of(storage.memory)]
    if storage.mapped:
        lines.append(
            f"observations beyond that lie in files in {tempfile.gettempdir()}: {readable(storage.mapped)}"
        )
    if storage.checkpoints:
        total = {"in all": sum(storage.checkpoints.values())}
        lines += ["disk, for checkpoints", *lines_of({**storage.checkpoints, **total})]
    return lines


def checkpoint_sizes(state: int, export: int, saves: int, every: int, retention: Retention) -> dict[str, int]:
    """Return the bytes of a run's checkpoints once it has ended, and of the one that is being written.

    Args:
        state: of what changes from update to update.
        export: of the policy's complete weights.
        saves: checkpoints written in the whole run.
        every: updates between two.
        retention: what is kept.
    """
    if not saves:
        return {}
    kept = min(saves, retention.keep_last or saves)
    if retention.keep_last and retention.keep_every:
        # Of every so many checkpoints one has a step that is a multiple of both.
        both = math.lcm(every, retention.keep_every)
        kept = min(saves, kept + saves * every // both)
    kept = min(saves, kept + 1)  # the best
    whole = kept if retention.export == "every" else min(saves, 2)
    sizes = {f"{kept} checkpoints, state": kept * state, f"{whole} of them whole": whole * export}
    return {**sizes, "one that is being written": state + export}


def check(storage: Storage, output_dir: Path, device: int = 0) -> None:
    """Refuse a run that the host cannot hold.

    Args:
        storage: of the run.
        output_dir: where checkpoints will be.
        device: bytes of what lies on the device, if that is the host's memory too.

    Raises:
        ValueError: Memory or disk is too small; says what is needed and what to change.
    """
    host = budget_of_host()
    needed = sum(storage.memory.values()) + device
    if needed > allowed(host):
        raise ValueError(
            f"this run does not fit this machine's memory: it takes {readable(needed)}, and "
            f"{readable(host.size)} are free. Lower algorithm.rollout.episodes_per_update, max_chunks or "
            "max_staleness, keep less of the observations in memory (algorithm.rows_gb), or use a larger "
            "machine."
        )
    _check_disk(storage, output_dir.absolute())


def _check_disk(storage: Storage, output_dir: Path) -> None:
    folder = next(path for path in (output_dir, *output_dir.parents) if path.exists())
    there = sum(file.stat().st_size for file in (output_dir / CHECKPOINTS).rglob("*") if file.is_file())
    free, wanted = shutil.disk_usage(folder).free, sum(storage.checkpoints.values()) - there
    if wanted > free:
        raise ValueError(
            f"this run's checkpoints take {readable(wanted)}, and {folder} has {readable(free)} free. Keep "
            "fewer (algorithm.checkpoint.keep_last, keep_every, export), or give another --output_dir."
        )
    temporary = Path(tempfile.gettempdir())
    if storage.mapped > shutil.disk_usage(temporary).free:
        raise ValueError(
            f"{readable(storage.mapped)} of encoded observations would lie in files in {temporary}, which "
            "has less room. Set TMPDIR to a folder with more, or raise algorithm.rows_gb."
        )
