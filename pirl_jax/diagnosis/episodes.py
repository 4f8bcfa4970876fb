"""What a few episodes say of a run before it learns anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.diagnosis.finding import Finding
from pirl_jax.likelihood import flow
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.scoring import GAP_ADVICE, ScoredEpisode
from pirl_jax.typing import Params


def agreement(scored: Sequence[ScoredEpisode], mode: str, pushed: str) -> Finding:
    """Do actor and learner give the same actions the same probability?

    Args:
        scored: at least one.
        mode: of the noise.
        pushed: dtype of pushes.
    """
    gap = max(episode.log_prob_gap for episode in scored)
    tolerance = max(episode.gap_tolerance for episode in scored)
    encoder = min((leaf.dtype for leaf in jax.tree.leaves(scored[0].features)), key=lambda x: x.itemsize)
    return Finding(
        "actor and learner agree on log-probabilities",
        f"largest difference {gap:.2g} nats a chunk ({mode}, encoder in {encoder}, "
        f"head in {scored[0].head_precision}, pushes in {pushed})",
        gap < tolerance,
        GAP_ADVICE,
    )


def noise_in_actions(
    policy: FlowPolicy,
    config: NoiseConfig,
    params: Params,
    scored: Sequence[ScoredEpisode],
    unnormalize: Callable[[np.ndarray], np.ndarray],
) -> list[Finding]:
    """How far does the noise move the executed action, against how much actions differ? By channel."""
    stochastic = StochasticPolicy.of(policy, config)
    quiet, noisy = [], []
    for episode in scored:
        T = len(episode)
        arrays = (episode.features, episode.proprio, episode.domain_id)
        observed = Observed(*jax.tree.map(lambda x, T=T: jnp.asarray(x[:T]), arrays))
        predict = stochastic.head(params, observed)
        latents = jnp.asarray(episode.latents)
        clean = flow.deterministic(stochastic.chain, predict, latents[:, 0])
        executed = flow.finish(stochastic.chain, predict, latents, jnp.asarray(episode.denoise_step))
        acted = np.arange(policy.chunk_size) < episode.executed[:, None]
        quiet.append(np.asarray(clean)[acted])
        noisy.append(np.asarray(executed)[acted])
    actions = unnormalize(np.concatenate(noisy))
    moved, motion = (actions - unnormalize(np.concatenate(quiet))).std(0), actions.std(0)
    findings = []
    for name, channels in policy.channel_groups.items():
        std, scale = moved[list(channels)], motion[list(channels)]
        share = float(np.median(std / np.maximum(scale, 1e-9)))
        findings.append(
            Finding(
                f"noise reaching the executed action, {name}",
                f"std {' '.join(f'{value:.3g}' for value in std)} by channel, "
                f"{100 * share:.1f} % of the actions' own",
                0.002 < share < 1.0,
                "Too little to explore, or so much that it drowns the policy: change algorithm.noise.level "
                f"(now {config.level}) or noise.group_scale. A nearly deterministic policy forgets "
                "noise in the middle of its chain; noise.mode=terminal does not have that problem.",
            )
        )
    return findings


def signal(scored: Sequence[ScoredEpisode]) -> Finding:
    """Do episodes differ in return?"""
    returns = np.array([episode.reward.sum() for episode in scored])
    success = float(np.mean([episode.success for episode in scored]))
    return Finding(
        "episodes differ in return",
        f"mean {returns.mean():.3g}, std {returns.std():.3g}, success {100 * success:.0f} % of {len(scored)}",
        bool(returns.std() > 0),
        "Without successes and failures there is nothing to learn from. Start from a better policy or an "
        "easier task, or look at more episodes (--episodes).",
    )
