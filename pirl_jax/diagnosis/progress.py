"""What the metrics of a run that learns say of it: what the doctor would, looking at it now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from pirl_jax.diagnosis.finding import Finding
from pirl_jax.glossary import entry_of

LOOKED_AT = 10
"""Updates: what is wrong now counts, not what was."""
_FEW = 3
"""Updates of which nothing is said yet: the first compiles, the critic knows nothing."""
_WAITS, _BUSY = 0.6, 0.2
_MOST_DROPPED = 0.5

Last = Callable[[str, int], Sequence[float]]
"""``(metric, count) -> `` its values in the last rows, without those that lack it."""


def findings(names: Sequence[str], last: Last, updates: int, target_kl: float | None = None) -> list[Finding]:
    """Return what is to be said, what is wrong first.

    Args:
        names: Metrics that the run has.
        last: Of the run.
        updates: Rows that there are.
        target_kl: Of the run; None: it has none, or it is not known.
    """
    if updates < _FEW:
        return []
    found = [
        *_outside_their_range(names, last),
        *_step_size(last, target_kl),
        *_movement(names, last),
        *_time(last),
        *_dropped(last),
        *_compilations(last, updates),
    ]
    return sorted(found, key=lambda finding: finding.ok)


def _outside_their_range(names: Sequence[str], last: Last) -> list[Finding]:
    """Say which metrics are outside the range that the glossary gives."""
    found = []
    for name in names:
        entry, values = entry_of(name), last(name, LOOKED_AT)
        if entry is None or not entry.has_range or not values:
            continue
        mean = fmean(values)
        if not entry.low <= mean <= entry.high:
            value = f"{mean:.3g} in the mean of the last {len(values)} updates; healthy: {entry.healthy}"
            found.append(Finding(name, value, False, entry.remedy))
    return found


def _step_size(last: Last, target_kl: float | None) -> list[Finding]:
    """Do updates stay near the policy that acted?"""
    values = last("train/approx_kl", LOOKED_AT)
    if not values:
        return []
    kl, stopped = fmean(values), fmean(last("train/kl_stopped", LOOKED_AT) or [0.0])
    steps = last("train/policy_steps", LOOKED_AT)
    name, value = "size of the updates", f"KL {kl:.3g} nats a chunk"
    if target_kl is None:
        advice = "Set algorithm.optimizer.target_kl, e.g. to 0.1, or lower optimizer.lr."
        return [Finding(name, f"{value}, without a target_kl", kl <= 0.5, advice)]
    ended = f"; target_kl={target_kl:g} ended {100 * stopped:.0f} % of the last {len(values)} updates"
    ended += f", after {fmean(steps):.1f} steps in the mean" if steps and stopped else ""
    short = stopped > 0.8 and bool(steps) and fmean(steps) < 2
    return [
        Finding(
            name,
            value + ended,
            kl <= 2 * target_kl and not short,
            "The first steps are too long: lower algorithm.optimizer.lr, or warm up (lr_warmup_steps).",
        )
    ]


def _movement(names: Sequence[str], last: Last) -> list[Finding]:
    """Does the policy move at all?"""
    parts = [name for name in names if name.startswith("train/moved/")]
    if not parts:
        return []
    updates = list(zip(*(last(name, LOOKED_AT) for name in parts)))
    still = [not any(moved) for moved in updates]
    return [
        Finding(
            "the policy moves",
            f"in {len(still) - sum(still)} of the last {len(still)} updates",
            not all(still),
            "The learner's log says why each update moved nothing. While the critic warms up "
            "(critic.warmup_updates) that is meant.",
        )
    ]


def _time(last: Last) -> list[Finding]:
    """Does the learner wait for actors, or they for it?"""
    names = ("train/wait_s", "train/collect_s", "train/release_s", "train/update_s")
    wait, *turn = (sum(last(name, LOOKED_AT)) for name in names)
    if sum(turn) <= 0 or not last(names[0], LOOKED_AT):
        return []
    share = wait / sum(turn)
    value = f"{100 * share:.0f} % of the last updates' time was waiting for episodes"
    if share > _WAITS:
        advice = (
            "Start more actors (--actors), if the machine has cores for them; rollout.max_staleness=1 or 2 "
            "has them play during updates; inference=served lets a GPU act for all."
        )
        return [Finding("the learner waits", value, False, advice)]
    if share < _BUSY:
        value += ": the learner is what takes the time, more actors would not help"
    return [Finding("learner and actors", value)]


def _dropped(last: Last) -> list[Finding]:
    """Is much of what is played for nothing?"""
    reasons = ("uniform_group", "uniform_task")
    dropped = {reason: sum(last(f"dropped/{reason}", LOOKED_AT)) for reason in reasons}
    learned = sum(last("train/episodes", LOOKED_AT))
    total = sum(dropped.values())
    if not total or not learned:
        return []
    reason = max(reasons, key=lambda each: dropped[each])
    entry = entry_of(f"dropped/{reason}")
    share = total / (total + learned)
    return [
        Finding(
            "episodes that teach nothing",
            f"{100 * share:.0f} % of what was played for the last updates was dropped ({reason})",
            share <= _MOST_DROPPED,
            entry.remedy if entry else "",
        )
    ]


def _compilations(last: Last, updates: int) -> list[Finding]:
    """Is anything compiled again and again?"""
    values = last("train/compilations", min(LOOKED_AT, updates - _FEW))
    if updates <= _FEW or not any(values):
        return []
    entry = entry_of("train/compilations")
    value = f"{sum(values):.0f} programs in the last {len(values)} updates"
    return [Finding("compiled again", value, False, entry.remedy if entry else "")]
