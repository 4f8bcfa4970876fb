"""PPO on a real X-VLA head and a task with a known optimum: it improves, and follows the true gradient.

All modes and algorithms: ``make bench-algorithms``.
"""

import analytic
import numpy as np
import pytest


def test_ppo_improves_and_its_gradient_is_the_true_one():
    task, params = analytic.start(0)
    case = analytic.Case("terminal", "PPO")
    before = float(analytic.success_rate(params, task))
    after = float(analytic.success_rate(case.train(0, 8).params, task))
    assert after > before + 0.2
    truth = analytic.true_gradient("terminal", params, task, 3, seed=0)
    estimates = case.gradients(params, params, task, 12, seed=1)
    cosine, low, _ = analytic.bootstrap_cosine(estimates, truth)
    assert cosine > low > 0.95


@pytest.mark.parametrize("mode", ["flow_sde", "flow_noise"])
@pytest.mark.slow
def test_the_gradient_of_an_executed_prefix_is_the_true_one_where_noise_reaches_it_from_all_steps(mode):
    """One of four steps is executed and earns the reward; the head mixes the noise of all into it."""
    task, params = analytic.start(0)
    case = analytic.Case(mode, "PPO", executed=1)
    _, params = case.start(0)
    truth = analytic.true_gradient(mode, params, task, 6, seed=0, executed=1).mean(0)
    whole = analytic.cosine(case.gradients(params, params, task, 40, seed=1).mean(0), truth)
    case.scored_steps = lambda k, executed, H: np.arange(H) < executed[:, None]
    prefix = analytic.cosine(case.gradients(params, params, task, 40, seed=1).mean(0), truth)
    print(f"{mode}: cosine {whole:.3f} with all steps, {prefix:.3f} with the executed one")
    assert whole > prefix + 0.01
