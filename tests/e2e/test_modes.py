"""LeRobot's own actor and the learner, each in its process, in every noise mode: do they agree?"""

import json

import pytest
from dense_reward import ENV_ID
from forked import Command
from lerobot.policies.xvla import XVLAPolicy
from quick import quick
from safetensors import safe_open
from test_learner import free_port, start, write_config

from pirl_jax.likelihood.modes import MODES
from pirl_jax.trees import store

pytestmark = pytest.mark.e2e

LEVELS = {"terminal": 0.1, "flow_sde": 0.5, "flow_cps": 0.5, "flow_noise": 0.1}
"""A noise level for every mode."""
HIGH_LEVELS = {"terminal": 1.0, "flow_sde": 0.5, "flow_cps": 0.8, "flow_noise": 1.0}
"""For an encoder in bfloat16, which alone rounds differently in torch and in JAX; the gap grows with 1/σ."""


FLOAT32 = [(mode, level, "float32", "float32", 1e-3) for mode, level in LEVELS.items()]
PUSHED_IN_BFLOAT16 = ("terminal", LEVELS["terminal"], "bfloat16", "float32", 1e-3)
BFLOAT16 = [(mode, level, "bfloat16", "bfloat16", 0.5) for mode, level in HIGH_LEVELS.items()]


def test_every_mode_is_tested():
    assert set(LEVELS) == set(HIGH_LEVELS) == set(MODES)


@pytest.mark.parametrize(
    ("mode", "level", "push_dtype", "encoder_dtype", "tolerance"),
    quick([*FLOAT32, PUSHED_IN_BFLOAT16, *BFLOAT16], FLOAT32[3], BFLOAT16[1]),
)
def test_actor_and_learner_agree_on_log_probabilities(
    tmp_path, mode, level, push_dtype, encoder_dtype, tolerance
):
    """Before and after an update that moves every weight, while the noise level falls."""
    noise = {"mode": mode, "level": level, "final_level": level / 2, "decay_updates": 1}
    settings = {
        "noise": noise,
        "push": {"dtype": push_dtype},
        "optimizer": {"lr": 1e-3},
        "rollout": {"episodes_per_update": 2, "max_staleness": 0},
    }
    if mode == "flow_noise":
        settings["objective"] = {"entropy_coef": 0.005}
    config = write_config(
        tmp_path,
        free_port(),
        algorithm=settings,
        env={"max_episode_steps": 10, "gym_id": ENV_ID},
    )
    policy = [f"--policy.path={tmp_path / 'base'}", f"--policy.dtype={encoder_dtype}"]
    shared = [f"--config_path={config}", *policy]
    of_actor = ["--env.discover_packages_path=bridge.plugin", f"--output_dir={tmp_path / 'actor'}"]
    with (
        start(tmp_path / "learner.log", *shared, "--steps=2", "--save_freq=0") as learner,
        Command("lerobot.rl.actor", [*shared, *of_actor], tmp_path / "actor.log"),
    ):
        assert learner.wait(240) == 0, (tmp_path / "learner.log").read_text()[-2000:]

    rows = [json.loads(line) for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["train/noise_level"] for row in rows] == pytest.approx([level, level / 2])
    # A log-ratio of 1e-4 is what float32 leaves; the second row is after weights have moved and been rounded.
    gaps = [row["train/actor_learner_logprob_gap"] for row in rows]
    print(f"largest difference {max(gaps):.3g} nats a chunk")
    assert max(gaps) < tolerance
    assert (max(gaps) > 1e-3) == (encoder_dtype == "bfloat16")
    assert min(row["train/policy_steps"] for row in rows) > 0
    assert all(row["train/skipped_steps"] == 0 for row in rows)
    # What a mode learns besides the policy stays in the training state and out of the export.
    last = tmp_path / "output/checkpoints/last"
    XVLAPolicy.from_pretrained(last / "pretrained_model")
    with safe_open(last / "pretrained_model/model.safetensors", framework="pt") as exported:
        assert not [key for key in exported.keys() if not key.startswith("model.")]  # noqa: SIM118
    trained = store.load(last / "training_state/orbax")["params"]
    assert ("noise_head" in trained) == (mode == "flow_noise")
