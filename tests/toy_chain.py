"""A policy head in NumPy and in JAX, and the chain that it denoises."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from pirl_jax.likelihood import modes

B, H, A, K = 6, 4, 5, 5
SCORED = (0, 1, 3)
SCALE = np.array([1.0, 0.5, 0.0, 2.0, 0.0])  # of the level, by channel


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "mix": 0.5 * rng.normal(size=(A, A)),
        "time": rng.normal(size=A),
        "bias": rng.normal(size=(H, A)),
        "log_std": rng.normal(size=A),
    }


def make_predict(params, xp):
    """A small nonlinear head, for ``xp`` numpy or jax.numpy."""
    return lambda x, t: xp.tanh(x @ params["mix"] + t[:, None, None] * params["time"] + params["bias"])


def make_spread(params, xp):
    """A small noise head, different for each row: factors between e^-0.7 and e^0.7."""

    def spread(t):
        row = xp.cos(xp.arange(len(t)))[:, None]
        return 0.7 * xp.tanh(params["log_std"] + t[:, None] * params["time"] + row)

    return spread


def to_jax(params, dtype=jnp.float32):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def conditionals(residuals, deviations, rho):
    """The differences of the prefixes' joint log-densities, Σ over noised steps and channels, [B, H]."""
    n_steps = residuals.shape[2]
    correlation = correlations(rho, n_steps)
    total = np.zeros((len(residuals), n_steps))
    for b, m, c in np.ndindex(deviations.shape):
        covariance, values = deviations[b, m, c] ** 2 * correlation, residuals[b, m, :, c]
        joint = [
            stats.multivariate_normal.logpdf(values[:n], cov=covariance[:n, :n])
            for n in range(1, n_steps + 1)
        ]
        total[b] += np.diff([0.0, *joint])
    return total


def correlations(rho, n_steps):
    return (1 - rho) * np.eye(n_steps) + rho * np.ones((n_steps, n_steps))


MODES = {"terminal": 0.2, "flow_sde": 0.7, "flow_cps": 0.4, "flow_noise": 0.2}
"""A noise level for every mode."""


REPLAYS = [(mode, replay) for mode in MODES for replay in ("last", "full") if mode != "flow_noise"]


def steps_of(mode, batch, steps):
    """A (first) noised step for each row, every one the mode allows in turn."""
    return jnp.array(np.resize(modes.MODES[mode].first_steps(steps), batch), jnp.int32)
