"""What a card says of the run that made a policy: task, recipe, and how often it succeeded on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.card.policy import Policy
from bridge.watch.preset import DEFAULTS, closest
from pirl_jax.training.interval import wilson
from pirl_jax.training.metrics import N_EPISODES, PC_SUCCESS, evaluated, updates

_OF_THE_MACHINE = ("launch.", "serve.", "memory_gb", "rows_gb", "inference", "max_actors", "checkpoint.")
"""Settings that change nothing of what is learned."""
_POOLED = 5
"""Updates whose episodes stand for the policy while it was trained."""


def task(env: Mapping[str, Any]) -> str:
    """Return in words what a run's environment was; empty where it had none."""
    if not env:
        return ""
    if env.get("type") != "libero":
        return f"`{env.get('gym_id') or env.get('task') or env.get('type')}`"
    words = f"LIBERO: {env.get('task')}"
    if ids := env.get("task_ids"):
        words += f", tasks {', '.join(map(str, ids))}" if isinstance(ids, list) else f", tasks {ids}"
    if states := env.get("train_init_states"):
        words += f", trained on initial states {states}"
    return f"{words}, {env.get('control_mode')} control"


def recipe(policy: Policy) -> str:
    """Return the table of a run's settings, and how they differ from the closest preset."""
    settings, algorithm = policy.settings, policy.algorithm
    rows = {"Steps of the run": settings.get("steps"), "Seed": settings.get("seed")}
    if algorithm:
        rows = {
            "Updates of the run": settings.get("steps"),
            "Episodes an update": _at(algorithm, "rollout.episodes_per_update"),
            "Noise": _at(algorithm, "noise.mode"),
            "Advantages": _at(algorithm, "advantage.estimator"),
            "Minibatch": _at(algorithm, "optimizer.minibatch_size"),
            "Learning rate": _at(algorithm, "optimizer.lr"),
            "Seed": settings.get("seed"),
        }
    else:
        rows |= {
            "Batch": settings.get("batch_size"),
            "Dataset": (settings.get("dataset") or {}).get("repo_id"),
            "Learning rate": policy.config.get("optimizer_lr"),
        }
    lines = ["| Setting | Value |", "| --- | --- |"]
    lines += [f"| {name} | `{value}` |" for name, value in rows.items() if value is not None]
    if not algorithm:
        return "\n".join([*lines, ""])
    near = closest(algorithm)
    differing = [each for each in near.differences if not each.name.startswith(_OF_THE_MACHINE)]
    preset = f"preset `{near.name}`" if near.name != DEFAULTS else "defaults"
    lines += ["", f"Its recipe is pirl-jax's {preset}{', but for:' if differing else '.'}", ""]
    if differing:
        lines += ["| `algorithm.…` | here | there |", "| --- | --- | --- |"]
        lines += [f"| `{each.name}` | `{each.value}` | `{each.preset}` |" for each in differing] + [""]
    return "\n".join(lines)


def of_its_run(policy: Policy) -> list[str]:
    """Return as lines how often the policy succeeded in its own run, evaluated and exploring."""
    if not policy.algorithm or policy.step is None:
        return []
    lines = []
    for row in evaluated(policy.rows):
        if row["step"] == policy.step and row.get(PC_SUCCESS) is not None:
            low, high = row["eval/interval_low"], row["eval/interval_high"]
            lines += [
                f"By its own run, without exploration noise: {row[PC_SUCCESS]:.1f} % of "
                f"{row[N_EPISODES]:.0f} episodes (95 %: {low:.1f} – {high:.1f}, for these tasks).",
                "",
            ]
    pooled = [row for row in updates(policy.rows) if row.get("train/success_rate") is not None][-_POOLED:]
    episodes = round(sum(row.get("train/episodes") or 0 for row in pooled))
    if episodes:
        wins = round(sum(row["train/success_rate"] * (row.get("train/episodes") or 0) for row in pooled))
        low, high = wilson(wins, episodes)
        lines += [
            f"Exploring, with noise, in the last {len(pooled)} updates before it: "
            f"{100 * wins / episodes:.1f} % of {episodes} training episodes "
            f"(95 %: {100 * low:.1f} – {100 * high:.1f}).",
            "",
        ]
    return lines


def _at(section: Mapping[str, Any], name: str) -> Any:
    value: Any = section
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
