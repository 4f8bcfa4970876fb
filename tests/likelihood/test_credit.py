"""What the score of a noised step is the gradient of: exactly, by quadrature, for a linear head.

Where action and reward are linear in the noise, reward times score is quadratic in it, and its mean over
the corners ξ = ±1 is its expectation. The reference knows no likelihood: it moves the bias of one call,
or in all, and looks at the reward.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.likelihood import flow, modes
from pirl_jax.recipe import NoiseConfig, ObjectiveConfig
from pirl_jax.update import losses

H, K = 3, 3
LEVELS = {"terminal": 0.2, "flow_sde": 0.7, "flow_cps": 0.4, "flow_noise": 0.2}
RNG = np.random.default_rng(0)
MIX, BIAS, EPS0, REWARD = (RNG.normal(size=size) for size in ((H, H), H, H, H))
"""Every output step of the head depends on every input step, as through attention."""


def chain_states(noise, k, corner, biases):
    """The chain from ε₀ to the action [K+1, H], ``corner`` [M, H] the noise, ``biases`` [K, H] by call."""
    states = [EPS0]
    noised = {} if k is None else {k - m: xi for m, xi in enumerate(corner)}
    for i in range(K, 0, -1):
        step = modes.noised_step(noise, i, K) if i in noised else modes.anchored_step(i, K)
        clean = MIX @ states[-1] + biases[i - 1]
        mean = float(step.noise_coef) * EPS0 + float(step.action_coef) * clean
        states.append(mean + float(step.std) * noised.get(i, 0.0))
    return np.array(states)


def earned(noise, k, corner, biases, executed):
    """Reward of the executed prefix."""
    return REWARD[:executed] @ chain_states(noise, k, corner, biases)[-1][:executed]


def slope(noise, k, calls, executed):
    """d(mean reward)/d(bias [H]) when the bias of these calls moves: exact, as all is linear."""
    still, quiet = np.tile(BIAS, (K, 1)), np.zeros((modes.MODES[noise.mode].num_noised(K), H))
    rows = []
    for h in range(H):
        moved = still.copy()
        moved[np.array(calls) - 1, h] += 1.0
        rows.append(earned(noise, k, quiet, moved, executed) - earned(noise, k, quiet, still, executed))
    return np.array(rows)


def policy_gradient(noise, k, executed, step_mask=None):
    """What PPO's loss at ratio 1 descends, of the bias [H], with the rewards as advantages."""
    M = modes.MODES[noise.mode].num_noised(K)
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=M * H))).reshape(-1, M, H)
    biases = np.tile(BIAS, (K, 1))
    paths = np.array([chain_states(noise, k, corner, biases) for corner in corners])[..., None]
    latents = paths if M == K else np.concatenate([paths[:, :1], paths[:, K - k : K - k + 2]], 1)
    rewards = [earned(noise, k, corner, biases, executed) for corner in corners]
    B = len(corners)
    steps = np.full(B, k, np.int32)
    if step_mask is None:
        step_mask = modes.scored_steps(steps, np.full(B, executed), H)
    with jax.enable_x64(True):
        chain = flow.Chain(noise, K, np.ones(1))

        def log_prob(bias):
            def predict(x, t):
                return jnp.einsum("hj,bjc->bhc", MIX, x) + bias[:, None]

            spread = (lambda t: jnp.zeros((len(t), 1))) if M == K else None
            return flow.log_prob(chain, predict, jnp.asarray(latents), jnp.asarray(steps), None, spread)

        old = log_prob(jnp.asarray(BIAS))
        rest = old, old, jnp.asarray(rewards), jnp.asarray(step_mask), jnp.ones(B), ObjectiveConfig()
        return -np.asarray(jax.grad(lambda bias: losses.policy_loss(log_prob(bias), *rest)[0])(BIAS))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def prefix_of(k, executed):
    """What was scored when the executed steps alone were."""
    B = 2 ** (H * (K if k is None else 1))
    return np.broadcast_to(np.arange(H) < executed, (B, H))


@pytest.mark.parametrize("executed", [1, 2, 3])
@pytest.mark.parametrize(
    ("mode", "k"),
    [("terminal", 1), *(("flow_sde", k) for k in (1, 2, 3)), ("flow_cps", 2), ("flow_cps", 3)],
)
def test_a_noised_steps_score_is_the_gradient_of_its_own_call(mode, k, executed):
    """For an executed prefix too: unexecuted steps' noise counts wherever it reaches what was executed."""
    noise = NoiseConfig(mode=mode, level=LEVELS[mode])
    expected = slope(noise, k, [k], executed)
    actual = policy_gradient(noise, k, executed)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)
    prefix = policy_gradient(noise, k, executed, prefix_of(k, executed))
    assert (cosine(prefix, expected) > 1 - 1e-9) == (k == 1 or executed == H)


@pytest.mark.parametrize("executed", [1, 2, 3])
def test_the_joint_score_of_a_whole_chain_is_the_gradient_of_all_its_calls(executed):
    noise = NoiseConfig(mode="flow_noise", level=LEVELS["flow_noise"])
    expected = slope(noise, K, range(1, K + 1), executed)
    np.testing.assert_allclose(policy_gradient(noise, K, executed), expected, rtol=1e-9, atol=1e-12)
    prefix = policy_gradient(noise, K, executed, prefix_of(None, executed))
    assert (cosine(prefix, expected) > 1 - 1e-9) == (executed == H)


def scalar_action(k, xi, bias, moves_the_anchor, steps=10, level=0.5, width=0.05):
    """The exact denoiser of data N(0, width²), its call k noised by ``xi``; ``bias`` [steps] by call."""
    noise = NoiseConfig(mode="flow_sde", level=level)
    x = anchor = 0.7
    for i in range(steps, 0, -1):
        t = i / steps
        clean = (1 - t) * width**2 / (t**2 + (1 - t) ** 2 * width**2) * x + bias[i - 1]
        step = modes.noised_step(noise, i, steps) if i == k else modes.anchored_step(i, steps)
        mean = float(step.noise_coef) * anchor + float(step.action_coef) * clean
        x = mean + float(step.std) * xi if i == k else mean
        if i == k and moves_the_anchor and step.s > 0:
            anchor = (float(step.noise_coef) * anchor + float(step.std) * xi) / step.s
    return x


@pytest.mark.parametrize(
    ("k", "kept", "moved"), [(10, 0.0, 1.1e-2), (5, 1.3e-7, 8.1e-3), (3, 8.4e-4, 1.05e-2)]
)
def test_noise_that_moved_the_anchor_would_go_far_and_credit_calls_that_decide_nothing(k, kept, moved):
    """Why ε₀ stays: early calls explore nothing because their output decides nothing (docs/decisions.md)."""
    still, one = np.zeros(10), np.eye(10)[k - 1]
    effect = scalar_action(k, 0.0, one, False) - scalar_action(k, 0.0, still, False)
    step = modes.noised_step(NoiseConfig(mode="flow_sde", level=0.5), k, 10)
    for moves, reach in ((False, kept), (True, moved)):
        spread = (scalar_action(k, 1.0, still, moves) - scalar_action(k, -1.0, still, moves)) / 2
        np.testing.assert_allclose(spread, reach, rtol=0.05, atol=1e-12)
        # E[action · score] of a bias of the call, exact as both are linear in ξ.
        credit = spread / float(step.std) * float(step.action_coef)
        assert (abs(credit - effect) < 1e-9 + 1e-6 * abs(effect)) is not moves
        assert not moves or credit > 10 * effect
