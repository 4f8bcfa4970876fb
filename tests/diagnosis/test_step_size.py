"""What the doctor says of how far an update moves, and in the end."""

import numpy as np
import pytest

from pirl_jax.diagnosis.finding import Finding, verdict
from pirl_jax.diagnosis.trial import size_of_step
from pirl_jax.recipe import OptimizerConfig

METRICS = {"train/policy_steps": 1.0, "train/kl_stopped": 0.0}
OPTIMIZER = OptimizerConfig(num_epochs=2, minibatch_size=4, lr=1e-3)


def test_one_step_that_leads_far_away_shows_in_the_kl_after_it():
    """Its own KL, of the minibatch before the step, is 0."""
    log_weights = np.array([3.0, -4.0, 0.0, -5.0])
    finding = size_of_step(METRICS, log_weights, OPTIMIZER)
    kl = np.mean(np.exp(log_weights) - 1 - log_weights)
    assert not finding.ok
    assert f"The policy is {kl:.3g} nats a chunk (KL) from the one that played" in str(finding)
    assert kl == pytest.approx(5.78, abs=0.01)


def test_a_small_step_is_well():
    finding = size_of_step(METRICS, np.full(8, 0.01), OPTIMIZER)
    assert finding.ok
    assert finding.value.startswith("1 of 4 minibatch steps. The policy is 5.02e-05 nats a chunk")
    assert finding.value.endswith("worth 100 % of as many that it would play itself")


@pytest.mark.parametrize(
    ("target_kl", "eased", "ok"),
    [
        (0.3, {}, True),
        (0.1, {}, False),
        (0.1, {"lr_warmup_steps": 8}, True),
        (0.1, {"adaptive_lr": True}, True),
    ],
)
def test_a_step_far_beyond_target_kl_is_wrong_unless_the_runs_own_are_shorter(target_kl, eased, ok):
    log_weights = np.array([0.8, -0.8] * 4)  # a KL of 0.34
    optimizer = OptimizerConfig(num_epochs=2, minibatch_size=4, target_kl=target_kl, **eased)
    finding = size_of_step({**METRICS, "train/kl_stopped": 1.0}, log_weights, optimizer)
    assert finding.ok == ok
    assert "1 of 4 minibatch steps, then target_kl ended it. " in finding.value
    assert f"with a target_kl of {target_kl}" in finding.value
    assert finding.value.endswith(tuple(f"steps are shorter ({name})" for name in eased) or "play itself")


def test_the_doctor_ends_with_a_verdict_in_words():
    well, ill = Finding("noise", "1"), Finding("signal", "0", False, "Do something.")
    assert verdict([well], 6) == "In 6 episodes nothing is wrong: the run is set up to learn."
    assert verdict([well, ill], 6).startswith("In 6 episodes one thing is wrong (signal). Change that first")
    assert verdict([ill, ill], 6).startswith("In 6 episodes 2 things are wrong (signal; signal).")
