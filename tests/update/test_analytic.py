"""PPO on a real X-VLA head and a task with a known optimum: it improves, and follows the true gradient.

All modes and algorithms: ``make bench-algorithms``.
"""

import analytic


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
