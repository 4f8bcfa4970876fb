"""What the doctor says of how far an update moves."""

import numpy as np
import pytest

from pirl_jax.diagnosis.trial import size_of_step

METRICS = {"train/policy_steps": 1.0, "train/approx_kl": 2e-9, "train/clip_fraction": 0.0}


def test_one_step_that_leads_far_away_shows_in_the_kl_after_it():
    """Its own KL, of the minibatch before the step, is 0."""
    log_weights = np.array([3.0, -4.0, 0.0, -5.0])
    finding = size_of_step(METRICS, log_weights, 1e-3)
    kl = np.mean(np.exp(log_weights) - 1 - log_weights)
    assert not finding.ok
    assert f"and {kl:.3g} nats a chunk after them" in str(finding)
    assert kl == pytest.approx(5.78, abs=0.01)


def test_a_small_step_is_well():
    assert size_of_step(METRICS, np.full(8, 0.01), 1e-3).ok
