"""What each ``algorithm.head_precision`` costs in agreement and in the gradient. Run it as a script.

python tests/benchmarks/precision.py [middle|wide …] [--chunks N] [--output_dir DIR]

The actor's own torch code draws chunks, the learner's scorer scores them, and a minibatch differentiates
their densities, weighted by random advantages: the policy gradient at unchanged parameters. Networks are
random, with a small encoder; their last layer is scaled so that actions have a root mean square of .5, metres
and parts of rotation matrices alike. On a CPU precisions are emulated (``tests/emulated.py``); on a GPU they
are real.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from by_recipe import make_recipe, make_scorer  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.xvla import XVLAPolicy  # noqa: E402
from lerobot.utils.constants import OBS_STATE  # noqa: E402
from published import VIEWS, published_config  # noqa: E402
from tiny import florence_config  # noqa: E402

from bridge.plugin.sampler import sample, use_float32_head  # noqa: E402
from bridge.weights.export import policy_config  # noqa: E402
from bridge.weights.state_dict import params_from_state  # noqa: E402
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy  # noqa: E402
from pirl_jax.linear import PRECISIONS  # noqa: E402
from pirl_jax.recipe import NoiseConfig  # noqa: E402
from pirl_jax.rollout.behaviour import Behaviour  # noqa: E402
from pirl_jax.rollout.episode import Episode, Observations  # noqa: E402
from pirl_jax.xvla.images import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from pirl_jax.xvla.policy import XVLAFlowPolicy  # noqa: E402

CONFIGS = TESTS.parent / "configs"
SIZES: dict[str, dict[str, Any]] = {
    "middle": {"hidden_size": 384, "depth": 6, "num_heads": 6},
    "wide": {"depth": 16, "num_denoising_steps": 4, "num_domains": 2},
}
"""``wide`` is the published width at two thirds of its depth: the emulation of all of it takes 9 GiB."""
IMAGE, TEXT_TOKENS = 64, 50
STEPS = {"terminal": 1, "flow_sde": 2}
"""The denoising step that is noised."""


def noises() -> dict[str, NoiseConfig]:
    """Return the noise of the recipe for LIBERO, that of πRL's preset, and the same at πRL's own level."""
    recipe = json.loads((CONFIGS / "pirl_libero_24gb.json").read_text())["algorithm"]
    preset = json.loads((CONFIGS / "presets" / "pirl_paper.json").read_text())
    paper = NoiseConfig(**preset["noise"])
    return {
        "libero": NoiseConfig(**recipe["noise"]),
        "paper": paper,
        "paper_at_half": dataclasses.replace(paper, level=0.5),
    }


def network(size: str) -> XVLAPolicy:
    """Return the actor's policy: a head of this size behind a small encoder, with as many tokens as usual."""
    torch.manual_seed(0)
    views = {key: PolicyFeature(FeatureType.VISUAL, (3, IMAGE, IMAGE)) for key in VIEWS[:2]}
    config = published_config(
        input_features=views | {OBS_STATE: PolicyFeature(FeatureType.STATE, (20,))},
        florence_config=florence_config(width=256, image_size=IMAGE),
        resize_imgs_with_padding=None,
        empty_cameras=0,
        tokenizer_max_length=TEXT_TOKENS,
        **SIZES[size],
    )
    actor = XVLAPolicy(config).eval()
    use_float32_head(actor)
    return actor


def observed_by_robot(chunks: int) -> Observations:
    """Return random observations, one more than chunks."""
    rng = np.random.default_rng(0)
    return Observations(
        images=rng.integers(0, 256, (chunks + 1, 2, 3, IMAGE, IMAGE), dtype=np.uint8),
        tokens=rng.integers(3, 32, (chunks + 1, TEXT_TOKENS)),
        domain_id=np.zeros(chunks + 1, np.int64),
        proprio=rng.standard_normal((chunks + 1, 20)).astype(np.float32),
    )


def inputs(observations: Observations) -> dict[str, torch.Tensor]:
    """Return what the actor's policy takes of all observations but the last."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    images = (torch.from_numpy(observations.images[:-1]) / 255 - mean) / std
    return {key: images[:, view] for view, key in enumerate(VIEWS[:2])} | {
        OBS_STATE: torch.from_numpy(observations.proprio[:-1]),
        "observation.language.tokens": torch.from_numpy(observations.tokens[:-1]),
        "domain_id": torch.from_numpy(observations.domain_id[:-1]),
    }


def play(actor: XVLAPolicy, observations: Observations, noise: NoiseConfig) -> Episode:
    """Return chunks that the actor draws."""
    step = STEPS[noise.mode]
    drawn = sample(actor, inputs(observations), noise, step, torch.Generator().manual_seed(1))
    chunks = len(observations.proprio) - 1
    return Episode(
        observations=observations,
        latents=np.ascontiguousarray(drawn.latents.numpy().swapaxes(0, 1)),
        denoise_step=np.full(chunks, step, np.int32),
        log_prob=drawn.log_prob.numpy(),
        executed=np.full(chunks, actor.config.chunk_size, np.int32),
        reward=np.zeros(chunks, np.float32),
        version=np.ones(chunks, np.int32),
        feature_key=np.zeros(chunks, np.int64),
        terminated=False,
        truncated=True,
        success=False,
    )


def scale_actions(actor: XVLAPolicy, observations: Observations) -> None:
    """Scale the decoder so that the chunks which are acted have a root mean square of .5."""
    noise = NoiseConfig()
    size = sample(actor, inputs(observations), noise, None).action[..., :9].square().mean().sqrt()
    with torch.no_grad():
        actor.model.transformer.action_decoder.fc.weight.mul_(0.5 / size)


def differentiate(policy: XVLAFlowPolicy, noise: NoiseConfig, dtype: Any, params: Any, rows: Any) -> Any:
    """Return a minibatch's log-densities, a chunk each, and the policy gradient, in a dtype."""
    stochastic = StochasticPolicy.of(policy, noise)
    observed, latents, denoise_step, level, advantages = jax.tree.map(
        lambda x: jnp.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None), rows
    )

    def objective(params: Any) -> Any:
        log_prob = stochastic.log_prob(params, observed, latents, denoise_step, level).sum(-1)
        return -(advantages * log_prob).mean(), log_prob

    # The gradient takes the place of a copy of the parameters: both in float64 are large.
    differentiated = jax.jit(jax.grad(objective, has_aux=True), donate_argnums=0)
    gradient, log_prob = differentiated(jax.tree.map(lambda x: jnp.array(x, dtype), params))
    return np.asarray(log_prob), [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]


def cosine(ours: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Return the cosine of two gradients."""

    def dot(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return sum(float(np.einsum("i,i->", x.ravel(), y.ravel(), dtype=np.float64)) for x, y in zip(a, b))

    return dot(ours, exact) / np.sqrt(dot(ours, ours) * dot(exact, exact))


def measure(size: str, chunks: int) -> list[dict[str, Any]]:
    """Return a row of figures for each precision."""
    actor, observations = network(size), observed_by_robot(chunks)
    scale_actions(actor, observations)
    config = policy_config(actor.config)
    episodes = {name: play(actor, observations, noise) for name, noise in noises().items()}
    params = jax.tree.map(np.array, params_from_state(actor.state_dict(), config))
    del actor
    gc.collect()
    trainable, frozen = XVLAFlowPolicy(config).split(params)
    advantages = np.random.default_rng(2).standard_normal(chunks).astype(np.float32)
    rows: list[dict[str, Any]] = [{"precision": name} for name in PRECISIONS]
    for name, noise in noises().items():  # one at a time: the gradients of all would fill memory
        exact: list[np.ndarray] | None = None
        for row in rows:
            started = time.monotonic()
            policy = XVLAFlowPolicy(config, head_precision=row["precision"])
            # One row more than the minibatch has, the final observation: another program than the update's.
            score = make_scorer(policy, frozen, make_recipe(noise=noise, max_chunks=chunks))
            scored = score(episodes[name], Behaviour(trainable, 0, noise.level))
            observed = Observed(
                jax.tree.map(lambda x: x[:-1], scored.features), scored.proprio[:-1], scored.domain_id[:-1]
            )
            level = np.full(chunks, noise.level, np.float32)
            batch = observed, scored.latents, scored.denoise_step, level, advantages
            if exact is None:
                with jax.enable_x64(True):
                    _, doubles = differentiate(XVLAFlowPolicy(config), noise, jnp.float64, trainable, batch)
                exact = [leaf.astype(np.float32) for leaf in doubles]
                del doubles
            log_prob, gradient = differentiate(policy, noise, jnp.float32, trainable, batch)
            row[name] = {
                "log_ratio": float(np.abs(log_prob - scored.old_log_prob.sum(-1)).max()),
                "gap": scored.log_prob_gap,
                "one_minus_cosine": 1 - cosine(gradient, exact),
            }
            seconds = time.monotonic() - started
            print(f"{size} {row['precision']} {name} {seconds:.0f} s {json.dumps(row[name])}", flush=True)
            del score, gradient
            jax.clear_caches()
            gc.collect()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return figures as Markdown: a line a precision, three columns a noise."""
    names = list(noises())
    lines = ["| precision | " + " | ".join(f"{name}: log ratio | gap | 1 - cosine" for name in names) + " |"]
    lines.append("|---" * (1 + 3 * len(names)) + "|")
    for row in rows:
        figures = [f"{value:.1g}" for name in names for value in row[name].values()]
        lines.append(f"| `{row['precision']}` | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["middle"], choices=list(SIZES))
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--output_dir", type=Path, default=TESTS.parent / "docs" / "results" / "precision")
    options = parser.parse_args()
    backend = jax.default_backend()
    if backend == "cpu":
        import emulated  # noqa: F401
    options.output_dir.mkdir(parents=True, exist_ok=True)
    file = options.output_dir / "precision.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for size in options.sizes:
        how = "emulated on a CPU" if backend == "cpu" else jax.devices()[0].device_kind
        found[f"{size}, {how}"] = {"chunks": options.chunks, "rows": measure(size, options.chunks)}
        file.write_text(json.dumps(found, indent=2) + "\n")
    for title, figures in found.items():
        print(f"{title}, {figures['chunks']} chunks", table(figures["rows"]), sep="\n")


if __name__ == "__main__":
    main()
