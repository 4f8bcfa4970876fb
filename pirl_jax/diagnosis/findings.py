"""Is a run set up to learn? Answers from a few episodes, in words, without training anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pirl_jax.likelihood import flow, noise_head
from pirl_jax.policy import FlowPolicy, Params
from pirl_jax.recipe import Recipe
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.episode import Episode
from pirl_jax.rollout.scoring import GAP_ADVICE, ScoredEpisode, make_scorer
from pirl_jax.training.loop import Collected, make_batch
from pirl_jax.update.policy_update import make_update
from pirl_jax.update.state import TrainState
from pirl_jax.update.values import make_evaluate


@dataclass(frozen=True)
class Finding:
    """One answer."""

    name: str
    value: str
    ok: bool = True
    advice: str = ""
    """What is wrong and what to change, where ``ok`` is false."""

    def __str__(self) -> str:
        line = f"{'ok' if self.ok else '!!'}  {self.name}: {self.value}"
        return line if self.ok else f"{line}\n    {self.advice}"


def diagnose(
    policy: FlowPolicy,
    critic: Callable[..., Any],
    frozen: Params,
    recipe: Recipe,
    state: TrainState,
    episodes: Sequence[Episode],
    behaviour: Behaviour,
    unnormalize: Callable[[np.ndarray], np.ndarray] = lambda action: action,
) -> list[Finding]:
    """Examine episodes that actors played with ``behaviour``, and one trial update on them.

    Args:
        policy: the flow policy's functions and sizes.
        critic: ``(critic params, inputs, proprio) -> values``.
        frozen: the encoder's parameters.
        recipe: every number of the method.
        state: before the first update; copied, not donated.
        episodes: at least one.
        behaviour: as pushed.
        unnormalize: takes actions [N, A] to the environment's units, channel by channel.
    """
    # Whatever the recipe's batch is, the trial's is what there is; a critic-free recipe is tried with one,
    # and the policy is not kept waiting.
    trial = dataclasses.replace(
        recipe,
        critic=dataclasses.replace(recipe.critic, warmup_updates=0),
        episodes_per_update=len(episodes),
        advantage="gae",
        group_size=1,
        lr_warmup_steps=0,
    )
    score = make_scorer(policy, frozen, trial)
    scored = [score(episode, behaviour) for episode in episodes]
    probe = _Probe(policy, critic, trial, state, [Collected(episode, 0) for episode in scored])
    return [
        _gap(scored, recipe),
        _ratio(probe),
        *_noise(policy, recipe, behaviour.params, scored, unnormalize),
        _signal(scored),
        probe.advantages(),
        *_gradients(probe),
        _step(probe, score, episodes, scored, behaviour, recipe),
        _memory(state, frozen, scored, recipe),
    ]


class _Probe:
    """Trial updates on one batch, each from a copy of the state."""

    def __init__(
        self,
        policy: FlowPolicy,
        critic: Callable[..., Any],
        recipe: Recipe,
        state: TrainState,
        collected: list[Collected],
    ) -> None:
        self.recipe = recipe
        self._policy, self._critic = policy, critic
        evaluate = make_evaluate(policy, critic, recipe)
        self._chain = flow.Chain.of(policy, recipe.noise)
        self._spread = noise_head.spread_fn(policy, recipe.noise)
        self._state = state
        self._batch, self._n = make_batch(collected, recipe, evaluate, state)

    def update(self, **changes: Any) -> tuple[TrainState, dict[str, float]]:
        lr = changes.pop("lr", self._state.lr)
        recipe = dataclasses.replace(self.recipe, **changes)
        update = make_update(self._policy.predict, self._critic, recipe, self._chain, self._spread)
        start = jax.tree.map(jnp.copy, self._state).replace(lr=jnp.asarray(lr, jnp.float32))
        state, metrics = update(start, self._batch, self._n)
        return state, {name: float(value) for name, value in metrics.items()}

    def advantages(self) -> Finding:
        values = np.asarray(self._batch.advantages)[: self._n]
        return Finding(
            "advantages",
            f"std {values.std():.3g}, from {values.min():.3g} to {values.max():.3g}, "
            f"{100 * (values > 0).mean():.0f} % of {self._n} chunks above zero",
            bool(np.isfinite(values).all()) and abs(values).max() <= 10 * max(values.std(), 1e-9),
            "One chunk or two carry the update: play more episodes for each "
            "(algorithm.episodes_per_update), or start from a policy that succeeds and fails more evenly.",
        )

    def still(self) -> tuple[TrainState, dict[str, float]]:
        """One full-batch step of length zero: everything is evaluated, nothing moves."""
        size = self._batch.old_log_prob.shape[0]
        return self.update(lr=0.0, num_epochs=1, minibatch_size=size, target_kl=None, adaptive_lr=False)


def _gap(scored: Sequence[ScoredEpisode], recipe: Recipe) -> Finding:
    gap = max(episode.log_prob_gap for episode in scored)
    tolerance = max(episode.gap_tolerance for episode in scored)
    encoder = min((leaf.dtype for leaf in jax.tree.leaves(scored[0].features)), key=lambda x: x.itemsize)
    return Finding(
        "actor and learner agree on log-probabilities",
        f"largest difference {gap:.2g} nats a chunk ({recipe.noise.mode}, encoder in {encoder}, pushes in "
        f"{recipe.push_dtype})",
        gap < tolerance,
        GAP_ADVICE,
    )


def _ratio(probe: _Probe) -> Finding:
    _, metrics = probe.still()
    # k3 is (log ratio)²/2 near a ratio of one.
    deviation = math.sqrt(2 * max(metrics["train/approx_kl"], 0.0))
    return Finding(
        "the ratio is one before the first step",
        f"root mean square of its logarithm {deviation:.2g}",
        deviation < 1e-3,
        "The update scores actions otherwise than on arrival; please report it with your config.",
    )


def _noise(
    policy: FlowPolicy,
    recipe: Recipe,
    params: Params,
    scored: Sequence[ScoredEpisode],
    unnormalize: Callable[[np.ndarray], np.ndarray],
) -> list[Finding]:
    """How far the noise moves the executed action, channel by channel, against how much actions differ."""
    chain = flow.Chain.of(policy, recipe.noise)
    quiet, noisy = [], []
    for episode in scored:
        T = len(episode)
        observed = (episode.features, episode.proprio, episode.domain_id)
        features, proprio, domain_id = jax.tree.map(lambda x, T=T: jnp.asarray(x[:T]), observed)
        predict = partial(_predict, policy, params, features, proprio, domain_id)
        latents = jnp.asarray(episode.latents)
        clean = flow.deterministic(chain, predict, latents[:, 0])
        executed = flow.finish(chain, predict, latents, jnp.asarray(episode.denoise_step))
        quiet.append(np.asarray(clean)[episode.step_mask])
        noisy.append(np.asarray(executed)[episode.step_mask])
    actions = unnormalize(np.concatenate(noisy))
    spread, motion = (actions - unnormalize(np.concatenate(quiet))).std(0), actions.std(0)
    findings = []
    for name, channels in policy.channel_groups.items():
        std, scale = spread[list(channels)], motion[list(channels)]
        share = float(np.median(std / np.maximum(scale, 1e-9)))
        findings.append(
            Finding(
                f"noise reaching the executed action, {name}",
                f"std {' '.join(f'{value:.3g}' for value in std)} by channel, "
                f"{100 * share:.1f} % of the actions' own",
                0.002 < share < 1.0,
                "Too little to explore, or so much that it drowns the policy: change algorithm.noise.level "
                f"(now {recipe.noise.level}) or noise.group_scale. A nearly deterministic policy forgets "
                "noise in the middle of its chain; noise.mode=terminal does not have that problem.",
            )
        )
    return findings


def _predict(
    policy: FlowPolicy, params: Params, features: Any, proprio: Any, domain_id: Any, x_t: Any, t: Any
) -> Any:
    return policy.predict(params, features, x_t, t, proprio, domain_id)


def _signal(scored: Sequence[ScoredEpisode]) -> Finding:
    returns = np.array([episode.reward.sum() for episode in scored])
    success = float(np.mean([episode.success for episode in scored]))
    return Finding(
        "episodes differ in return",
        f"mean {returns.mean():.3g}, std {returns.std():.3g}, success {100 * success:.0f} % of {len(scored)}",
        bool(returns.std() > 0),
        "Without successes and failures there is nothing to learn from. Start from a better policy or an "
        "easier task, or look at more episodes (--episodes).",
    )


def _gradients(probe: _Probe) -> list[Finding]:
    state, metrics = probe.still()
    norm = metrics["train/grad_norm"]
    # After one step from zero, Adam's first moment is (1 - β₁) times the clipped gradient.
    clip = min(1.0, probe.recipe.grad_clip_norm / (norm + 1e-6))
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    squares: dict[str, float] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(moments):
        group = "/".join(str(entry.key) for entry in path[:2])
        squares[group] = squares.get(group, 0.0) + float(jnp.sum(leaf**2))
    findings = []
    for group, square in squares.items():
        value = math.sqrt(square) / (1 - probe.recipe.betas[0]) / clip
        findings.append(
            Finding(
                f"gradient norm of {group}",
                f"{value:.3g}",
                math.isfinite(value),
                "Not finite: lower algorithm.lr, raise algorithm.noise.level.",
            )
        )
    whole = Finding(
        "gradient norm",
        f"{norm:.3g}, clipped to {probe.recipe.grad_clip_norm}",
        math.isfinite(norm) and norm > 0,
        "No gradient reaches the policy: all advantages are equal, or nothing is trainable.",
    )
    return [whole, *findings]


def _step(
    probe: _Probe,
    score: Callable[[Episode, Behaviour], ScoredEpisode],
    episodes: Sequence[Episode],
    scored: Sequence[ScoredEpisode],
    behaviour: Behaviour,
    recipe: Recipe,
) -> Finding:
    state, metrics = probe.update()
    updated = dataclasses.replace(behaviour, params=state.params)
    log_weights = np.concatenate(
        [
            (score(episode, updated).old_log_prob - before.old_log_prob).sum(axis=1)
            for episode, before in zip(episodes, scored, strict=True)
        ]
    )
    weights = np.exp(log_weights - log_weights.max())
    effective = float(weights.sum() ** 2 / (weights**2).sum() / len(weights))
    return Finding(
        "one update of this recipe",
        f"{metrics['train/policy_steps']:.0f} steps, KL {metrics['train/approx_kl']:.3g}, clipped "
        f"{100 * metrics['train/clip_fraction']:.0f} %, effective sample size {100 * effective:.0f} %",
        effective > 0.3,
        f"It moves too far from the policy that acted: lower algorithm.lr (now {recipe.lr}) or num_epochs, "
        "set target_kl, or warm up (lr_warmup_steps).",
    )


def _memory(state: TrainState, frozen: Params, scored: Sequence[ScoredEpisode], recipe: Recipe) -> Finding:
    def size(tree: Any) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    episode = scored[0]
    point = size((episode.features, episode.proprio)) / (len(episode) + 1) + size(episode.latents) / len(
        episode
    )
    rows = recipe.episodes_per_update * (recipe.max_chunks + 1)
    parts = {"training state": size(state), "frozen": size(frozen), "batch": rows * point}
    if recipe.anchor.coef:
        parts["demonstrations"] = recipe.anchor.max_samples * size(episode.features) / (len(episode) + 1)
    text = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in parts.items())
    return Finding("memory of the learner, without activations", text)
