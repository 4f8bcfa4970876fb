"""The quick demo: a learner and two stock actors from the committed clone, and what they have gained."""

from __future__ import annotations

import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

from bridge.demo.quick import warm_start
from bridge.demo.quick.gain import STRETCH, Gain, gain
from bridge.demo.quick.page import show
from bridge.demo.training import ACTORS, Training, train
from bridge.launch.facts import Facts
from pirl_jax.files import read_json
from pirl_jax.recipe import LaunchConfig
from pirl_jax.training.metrics import updates

RECIPE = Path(__file__).with_name("recipe.json")
RESULTS = ("summary.json", "run.html", "train/metrics.jsonl", "train/checkpoints/last")

logger = logging.getLogger("demo")


def run(output_dir: Path, seed: int) -> dict[str, Any]:
    """Run it all, show the run's page, and return the summary, which ``summary.json`` has too.

    Args:
        output_dir: Is there, and empty.
        seed: Of learner and actors.

    Raises:
        RuntimeError: The run failed; says why.
    """
    started, told = time.monotonic(), [""]

    def progress(line: str) -> None:
        if line != told[0]:
            told[0] = line
            logger.info("   %s", line)

    logger.info("── PI-RL from the clone of a cautious expert, with %d stock LeRobot actors", ACTORS)
    logger.info("   to watch it in a browser: pirl watch %s", output_dir / "train")
    training = train(RECIPE, warm_start.POLICY, output_dir, seed, progress=progress, at_once=facts())
    found = gain(training.metrics)
    summary = summarise(seed, training, found) | {
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu_seconds(), 1),
    }
    (output_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    logger.info("   %s", show(output_dir / "train", output_dir / "run.html"))
    return summary


def facts() -> Facts:
    """Return what ``pirl-launch`` has to know of the recipe, but for folder and port."""
    return Facts(
        output_dir="",
        updates=read_json(RECIPE)["steps"],
        host="127.0.0.1",
        port=0,
        max_actors=64,
        base=None,
        launch=LaunchConfig(actors=ACTORS),
    )


def summarise(seed: int, training: Training, found: Gain) -> dict[str, Any]:
    """Return what a run has shown, as JSON."""
    rows = updates(training.metrics)
    return {
        "seed": seed,
        "first": found.first.summary(),
        "last": found.last.summary(),
        "stretch": STRETCH,
        "gain": found.last.rate - found.first.rate,
        "p_value": found.p_value,
        "test": "Fisher's exact, one-sided, of the pooled episodes",
        "success_rates": [row["train/success_rate"] for row in rows],
        "updates": len(rows),
        "episodes": int(sum(row["train/episodes"] for row in rows)),
        "max_actor_learner_logprob_gap": max(row["train/actor_learner_logprob_gap"] for row in rows),
        "actors": ACTORS,
        "actor_command": training.actor_command,
    }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those that it has started and seen end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def table(summary: dict[str, Any]) -> str:
    """Return the result as the few lines a person wants to read."""
    width, n = summary["stretch"], summary["updates"]
    rows = ["updates   success   95 % interval"]
    for name, updated in (("first", f"1 – {width}"), ("last", f"{n - width + 1} – {n}")):
        result = summary[name]
        low, high = result["ci95"]
        rows.append(f"{updated:<8}{result['success']:>9.1%}   {low:.1%} – {high:.1%}   (n = {result['n']})")
    verdict = "more often than by chance" if summary["p_value"] < 0.05 else "no more often than chance allows"
    return "\n".join(
        [
            *rows,
            f"{100 * summary['gain']:+.1f} points; the last succeed {verdict}: p = {summary['p_value']:.2g} "
            "(Fisher's exact test,",
            "one-sided, of policies as they explore; updates of one run follow from one another, so p speaks",
            "for this run and not for the next).",
            f"{summary['wall_seconds']:.0f} s, {summary['cpu_seconds']:.0f} s of CPU",
        ]
    )
