"""GRPO with LeRobot's own actor: groups from one initial state, and what becomes of those without signal."""

import json
from pathlib import Path

import pytest
from forked import Command
from test_learner import free_port, start, write_config

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
UPDATES = 4
"""As ``write_config`` has it."""


def test_updates_are_made_of_mixed_groups_and_uniform_ones_are_counted(tmp_path):
    """Learner and actor with the preset and a flag after it; a fair coin decides each episode."""
    config = write_config(tmp_path, free_port(), env={"gym_id": "coin_env:Coin-v0"})
    flags = [
        f"--config_path={config}",
        f"--algorithm=include {ROOT / 'configs' / 'presets' / 'grpo.json'}",
        "--algorithm.rollout.group_size=2",
    ]
    of_actor = ["--env.discover_packages_path=bridge.plugin", f"--output_dir={tmp_path / 'actor'}"]
    with (
        start(tmp_path / "learner.log", *flags) as learner,
        Command("lerobot.rl.actor", [*flags, *of_actor], tmp_path / "actor.log"),
    ):
        assert learner.wait(timeout=240) == 0, (tmp_path / "learner.log").read_text()[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "output" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, UPDATES + 1))
    for row in rows:
        # Two groups of two, one success in each: had their seeds differed, groups would never have filled.
        assert row["train/episodes"] == 4
        assert row["train/success_rate"] == 0.5
        assert row["train/policy_steps"] >= 1
        assert row["train/grad_norm"] > 0
        assert row["train/value_loss"] == 0
        assert row["dropped/uniform_group"] % 2 == 0
    assert sum(row["dropped/uniform_group"] for row in rows) >= 2
