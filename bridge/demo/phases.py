"""What the demo does, one phase after the other."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from bridge.datasets.tokenizer import build_tokenizer
from bridge.demo.evaluate import Evaluation, Evaluator, record_video
from bridge.demo.record import TEST_SEEDS, TRAIN_SEEDS, record
from bridge.demo.training import ACTORS, Training, train
from bridge.figures.learning_curve import learning_curve
from bridge.plugin.panda import INSTRUCTION
from bridge.processes import Command
from pirl_jax.run_folder.layout import last_policy
from pirl_jax.training.metrics import read, updates

logger = logging.getLogger(__name__)

CONFIGS = Path(os.path.relpath(Path(__file__).resolve().parents[2] / "configs"))
AIM_OFFSET = (0.0, -0.02)
"""m that the expert aims beside the cube: it still takes most cubes, and its pupils fewer."""
RESULTS = ("summary.json", "learning_curve.png", "before.mp4", "after.mp4", "train/checkpoints/last")


class Demo:
    """The phases of one run, in order; each writes into ``output_dir`` and adds its time to the summary."""

    def __init__(
        self, output_dir: Path, seed: int, demonstrations: int, episodes: int, evaluate: Evaluator
    ) -> None:
        self.output_dir = output_dir
        self.evaluate = evaluate
        self.seed = seed
        self.demonstrations = demonstrations
        self.episodes = episodes
        self.seconds: dict[str, float] = {}

    def run(self) -> dict:
        """Run everything and return the summary."""
        with self._phase(
            "demonstrations", f"{self.demonstrations} by a scripted expert that aims beside the cube"
        ):
            build_tokenizer(self.output_dir / "tokenizer", [INSTRUCTION])
            record(
                self.output_dir / "dataset",
                episodes=self.demonstrations,
                first_seed=TRAIN_SEEDS + 10_000 * self.seed,
                aim_offset=AIM_OFFSET,
            )
        with self._phase("warm_start", "behaviour cloning in JAX"):
            self._warm_start()
        start = last_policy(self.output_dir / "sft")
        seeds = range(TEST_SEEDS, TEST_SEEDS + self.episodes)
        with self._phase("evaluation_before", f"{len(seeds)} held-out episodes, zero noise"):
            before = self.evaluate(start, seeds)
            logger.info("   %s", describe(before))
        with self._phase("training", f"PI-RL with {ACTORS} stock LeRobot actors"):
            config = CONFIGS / "panda_pick_cube.json"
            training = train(config, start, self.output_dir, self.seed, progress=self._progress)
            shutil.copyfile(self.output_dir / "train" / "metrics.jsonl", self.output_dir / "metrics.jsonl")
        with self._phase("evaluation_after", f"the same {len(seeds)} episodes"):
            after = self.evaluate(training.policy, seeds)
            logger.info("   %s", describe(after))
        with self._phase("pictures", "videos and learning curve"):
            picture = self.output_dir / "learning_curve.png"
            ends = before.summary(), after.summary()
            learning_curve(training.metrics, picture, "π-RL on PandaPickCube", *ends)
            record_video(start, seeds[:6], self.output_dir / "before.mp4")
            record_video(training.policy, seeds[:6], self.output_dir / "after.mp4")
        return self._summary(before, after, training)

    def _warm_start(self) -> None:
        arguments = [
            f"--config_path={CONFIGS / 'panda_pick_cube_sft.json'}",
            f"--dataset.root={self.output_dir / 'dataset'}",
            f"--policy.tokenizer_name={self.output_dir / 'tokenizer'}",
            f"--output_dir={self.output_dir / 'sft'}",
            f"--seed={self.seed}",
        ]
        with Command("pirl_jax.sft", arguments, self.output_dir / "logs" / "sft.log") as command:
            metrics = self.output_dir / "sft" / "metrics.jsonl"
            while command.running:
                time.sleep(2)
                rows = read(metrics)
                if rows:
                    self._progress(f"step {rows[-1]['step']}, loss {rows[-1]['train/loss']:.4f}")
            command.check()

    def _summary(self, before: Evaluation, after: Evaluation, training: Training) -> dict:
        metrics = updates(training.metrics)
        return {
            "seed": self.seed,
            "before": before.summary(),
            "after": after.summary(),
            "gain": after.success - before.success,
            "actor_command": training.actor_command,
            "actors": ACTORS,
            "updates": len(metrics),
            "episodes": int(sum(row["train/episodes"] for row in metrics)),
            "max_actor_learner_logprob_gap": max(row["train/actor_learner_logprob_gap"] for row in metrics),
            "wall_seconds": {**self.seconds, "total": round(sum(self.seconds.values()), 1)},
        }

    @contextmanager
    def _phase(self, name: str, what: str):
        logger.info("── %s: %s", name.replace("_", " "), what)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        logger.info("   done in %.0f s", self.seconds[name])

    def _progress(self, line: str) -> None:
        if line != getattr(self, "_line", None):
            self._line = line
            logger.info("   %s", line)


def describe(evaluation: Evaluation) -> str:
    """Return one evaluation in words."""
    result = evaluation.summary()
    low, high = result["ci95"]
    return f"{result['success']:.1%} of {result['n']} episodes, 95 % interval {low:.1%} to {high:.1%}"


def table(summary: dict) -> str:
    """Return the result as the few lines a person wants to read."""
    rows = ["        success   95 % interval"]
    for name in ("before", "after"):
        result = summary[name]
        low, high = result["ci95"]
        rows.append(f"{name:<8}{result['success']:>7.1%}   {low:.1%} – {high:.1%}   (n = {result['n']})")
    return "\n".join(rows)
