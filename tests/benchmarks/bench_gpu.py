"""Our learner over a torch one on a GPU: update, encoder, sampling, memory, precisions. Run it as a script.

python tests/benchmarks/bench_gpu.py [--size published] [--rounds N] [--no_compile] [--output_dir DIR]

Needs jax with CUDA, flax, optax, orbax, torch with CUDA, transformers and LeRobot's wheel, and the small
packages that ``pirl_jax`` is annotated with (jaxtyping, beartype, psutil); no simulator, no gRPC, no hub, no
weights. Networks are random. Prints Markdown tables and writes ``bench_gpu.md`` and ``bench_gpu.json``. On a
CPU it takes the same way with ``--size tiny`` and in ``highest`` alone; that says nothing of a GPU.

Ratios are of wall time in one precision. ``of ceiling`` is a step's products (three times the forward's in a
gradient, whatever is computed again) over the rate of one large product in that precision, measured here.
Precisions are compared on equal weights: the largest difference of a chunk's log-probability from the float32
torch network's, in nats, and one minus the cosine of a policy gradient to the one in ``highest``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch wants some of the card too

import timing  # noqa: E402 isort: skip
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from equal_learners import PROPRIO, TOKENS, Learners, check_equal, frames, learners, networks, recipe  # noqa: E402
from torch_learner import TorchLearner  # noqa: E402
from torch_learner import encode as torch_encode  # noqa: E402

from pirl_jax.likelihood import flow  # noqa: E402
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy  # noqa: E402
from pirl_jax.linear import PRECISIONS, products_in  # noqa: E402
from pirl_jax.training.budget import readable  # noqa: E402
from pirl_jax.training.needs import needs  # noqa: E402
from pirl_jax.training.plan import Observation, Plan  # noqa: E402
from pirl_jax.xvla.policy import XVLAFlowPolicy  # noqa: E402

ON_GPU = jax.default_backend() == "gpu"
DEVICE = "cuda" if ON_GPU else "cpu"
WORK = {"tiny": (2, 4, 8, 1), "middle": (8, 8, 32, 2), "published": (8, 16, 64, 2)}
"""Episodes, chunks in each, points of a minibatch, epochs."""
ENCODED = {"tiny": 2, "middle": 16, "published": 32}
"""Observations that are encoded at a time."""
AUTOCAST = {"highest": None, "tf32": None, "bf16": torch.bfloat16}
"""Precisions that torch has, and what it casts to."""
GOALS = "goals: at most 0.75 of eager and 1.0 of compiled, at least 40 % of the ceiling, memory within 10 %"
COLUMNS = ("what", "precision", "JAX (s)", "eager (s)", "compiled (s)", "÷ eager", "÷ compiled")
COLUMNS += ("samples/s", "of ceiling (%)")


def finished(step: Callable[[], Any]) -> Callable[[], None]:
    """Wrap a step so that it ends when the device has done it."""

    def run() -> None:
        jax.block_until_ready(step())
        if ON_GPU:
            torch.cuda.synchronize()

    return run


def in_precision(name: str) -> None:
    """Have torch multiply float32 numbers as ``head_precision`` does."""
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"


def ceiling(precision: str, dtype: Any = jnp.float32) -> float:
    """Measure the floating-point operations a second of a large product."""
    size = 8192 if ON_GPU else 512
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)

    @jax.jit
    def product(a: jax.Array) -> jax.Array:
        with products_in(precision):
            return a @ a

    step = finished(lambda: product(a))
    step()
    return 2 * size**3 / min(timing.seconds(step, 3, time.perf_counter) for _ in range(3))


def forward_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the operations of a function as it is written, before a compiler changes it."""
    return float((jax.jit(function).lower(*arguments).cost_analysis() or {}).get("flops", 0.0))


def points(pair: Learners) -> tuple[Observed, Any, Any]:
    """Return the first episode's chunks, as scorer and policy take them."""
    episode = pair.episodes[0]
    features = jax.tree.map(lambda x: jnp.asarray(x[:-1]), episode.features)
    observed = Observed(features, jnp.asarray(episode.proprio[:-1]), jnp.asarray(episode.domain_id[:-1]))
    return observed, jnp.asarray(episode.latents), jnp.asarray(episode.denoise_step)


def head_flops(pair: Learners) -> float:
    """Return the operations of the head's forward pass on one point."""
    observed, latents, _ = points(pair)
    inputs = pair.state.params, observed.features, latents[:, 1], jnp.ones(len(latents)), *observed[1:]
    return forward_flops(pair.policy.predict, *inputs) / len(latents)


def figures(what: str, precision: str, found: dict[str, Any], samples: int, flops: float, top: float) -> dict:
    """Return a row of the table of speeds."""
    ours, eager, compiled = found["ours"], found["eager"], found["compiled"]
    numbers = ours, eager, compiled, timing.ratio(ours, eager), timing.ratio(ours, compiled)
    return dict(zip(COLUMNS, (what, precision, *numbers, samples / ours, 100 * flops / ours / top)))


def memory(pair: Learners, size: str) -> dict[str, Any]:
    """Do the first update of the process, and compare JAX's peak with the plan."""
    pair.nets.params.clear()
    gc.collect()
    config, state = pair.nets.config, pair.state
    as_shapes = partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
    side = pair.nets.image_size
    observation = Observation((2, 3, side, side), TOKENS, PROPRIO, config.real_action_dim)
    planned = needs(Plan(pair.parts, as_shapes(pair.frozen), as_shapes(state), observation), {}).device
    orders = pair.orders()
    check_equal(pair.update(), pair.torch_update(orders))
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"size": size, "planned": planned, "peak": peak, "peak ÷ plan": timing.ratio(peak, planned)}


def update_speed(pair: Learners, precision: str, options: argparse.Namespace, flops: float) -> dict[str, Any]:
    """Measure whole updates from kept features."""
    orders = pair.orders()
    in_precision(precision)
    eager, fast = None, None
    if precision in AUTOCAST:
        eager = finished(lambda: pair.torch_update(orders))
        learner = pair.torch
        pieces = learner.model, learner.critic, learner.numbers
        if not options.no_compile:
            other = TorchLearner(*pieces, compiled=True, autocast=learner.autocast)
            rows = other.batch(pair.torch_episodes)._replace(views=None)
            fast, reason = timing.compiled_or_not(lambda: finished(lambda: other.update(rows, orders)))
            if reason:
                print(reason)
    steps = {"ours": finished(pair.update), "eager": eager, "compiled": fast}
    found = timing.alternately(steps, options.rounds, clock=time.perf_counter)
    samples = pair.recipe.optimizer.num_epochs * sum(map(len, pair.episodes))
    return figures("update", precision, found, samples, 3 * flops * samples, ceiling(precision))


def sampling_speed(pair: Learners, options: argparse.Namespace, flops: float) -> dict[str, Any]:
    """Measure the denoising chain of one observation from kept features, in float32."""
    in_precision("highest")
    observed, latents, _ = points(pair)
    one, noise = jax.tree.map(lambda x: x[:1], observed), latents[:1, 0]
    stochastic = StochasticPolicy.of(pair.policy, pair.recipe.noise)
    draw = jax.jit(lambda p, o, e: flow.deterministic(stochastic.chain, stochastic.head(p, o), e))
    params = pair.state.params
    tensors = [torch.from_numpy(np.array(x)).to(DEVICE) for x in (*one.features, noise, one.proprio)]
    domain = torch.from_numpy(np.array(one.domain_id)).long().to(DEVICE)
    learner = pair.torch
    fast = None
    if not options.no_compile:
        other = TorchLearner(learner.model, learner.critic, learner.numbers, compiled=True)
        fast, _ = timing.compiled_or_not(lambda: finished(lambda: other.sample(*tensors, domain)))
    steps = {
        "ours": finished(lambda: draw(params, one, noise)),
        "eager": finished(lambda: learner.sample(*tensors, domain)),
        "compiled": fast,
    }
    found = timing.alternately(steps, options.rounds, 3, time.perf_counter)
    return figures("sampling", "highest", found, 1, flops * stochastic.chain.K, ceiling("highest"))


def encoder_speed(dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the frozen encoder in float32 or bfloat16."""
    in_precision("highest")
    nets = networks(options.size, dtype, depth=1)  # the head is not needed
    model = nets.model.to(DEVICE)
    policy = XVLAFlowPolicy(nets.config)
    frozen = {"vlm": nets.params.pop("vlm")}
    nets.params.clear()
    images, tokens = map(jnp.asarray, frames(nets, ENCODED[options.size]))
    pixels, ids = (torch.from_numpy(np.array(x)).to(DEVICE) for x in (images, tokens))
    encode = jax.jit(policy.encode)

    def torch_step(function: Callable[..., Any]) -> Callable[[], None]:
        return finished(torch.no_grad()(lambda: function(model, pixels, ids.long())))

    fast = None
    if not options.no_compile:
        fast, _ = timing.compiled_or_not(lambda: torch_step(torch.compile(torch_encode)))
    ours = finished(lambda: encode(frozen, images, tokens))
    steps = {"ours": ours, "eager": torch_step(torch_encode), "compiled": fast}
    found = timing.alternately(steps, options.rounds, clock=time.perf_counter)
    flops = forward_flops(policy.encode, frozen, images, tokens)
    top = ceiling("highest") if dtype == "float32" else ceiling("bf16" if ON_GPU else "highest", jnp.bfloat16)
    return figures("encoder", dtype, found, len(images), flops, top)


def agreement(
    pair: Learners, reference: list[np.ndarray] | None
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Compare log-probabilities with torch's in float32, and the gradient with a reference."""
    in_precision("highest")
    observed, latents, steps = points(pair)
    stochastic = StochasticPolicy.of(pair.policy, pair.recipe.noise)
    level = jnp.full(len(latents), pair.recipe.noise.level)
    advantages = jnp.asarray(np.random.default_rng(2).standard_normal(len(latents)), jnp.float32)

    def objective(params: Any) -> tuple[Any, Any]:
        log_prob = stochastic.log_prob(params, observed, latents, steps, level).sum(-1)
        return (advantages * log_prob).mean(), log_prob

    gradient, log_prob = jax.jit(jax.grad(objective, has_aux=True))(pair.state.params)
    rows = pair.torch.batch(pair.torch_episodes[:1])
    plain = TorchLearner(pair.torch.model, pair.torch.critic, pair.torch.numbers)
    with torch.no_grad():
        theirs = plain.log_prob(rows).sum(-1).cpu().numpy()
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
    exact = reference or found
    dots = [
        sum(float(np.vdot(x.astype(np.float64), y)) for x, y in zip(a, b, strict=True))
        for a, b in ((found, exact), (found, found), (exact, exact))
    ]
    gap = float(np.abs(np.asarray(log_prob) - theirs).max())
    return {"gap (nats)": gap, "1 - cosine": 1 - dots[0] / np.sqrt(dots[1] * dots[2])}, exact


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    work = recipe(*WORK[options.size])
    speeds, precisions, peak, exact, flops = [], [], {}, None, 0.0
    for precision in PRECISIONS if ON_GPU else ("highest",):
        pair = learners(
            networks(options.size),
            work,
            head_precision=precision,
            device=DEVICE,
            autocast=AUTOCAST.get(precision),
        )
        in_precision("highest")
        if precision == "highest":
            # First of all, since a peak is of a process and cannot be forgotten.
            peak, flops = memory(pair, options.size), head_flops(pair)
            pair = learners(networks(options.size), work, device=DEVICE)
        found, exact = agreement(pair, exact)
        precisions.append({"precision": precision, **found})
        speeds.append(update_speed(pair, precision, options, flops))
        if precision == "highest":
            speeds.append(sampling_speed(pair, options, flops))
        del pair
        gc.collect()
    speeds += [encoder_speed(dtype, options) for dtype in ("float32", "bfloat16")]
    device = jax.devices()[0].device_kind
    versions = {"jax": jax.__version__, "torch": torch.__version__}
    return {"device": device, **versions, "memory": peak, "speeds": speeds, "precisions": precisions}


def written(found: dict[str, Any]) -> str:
    """Return figures as Markdown."""
    peak = found["memory"]
    measured = "-" if peak["peak"] is None else readable(peak["peak"])
    lines = [f"{found['device']}, JAX {found['jax']}, torch {found['torch']}; {GOALS}", ""]
    lines += [timing.header(COLUMNS), *(timing.row(*entry.values()) for entry in found["speeds"]), ""]
    lines.append(
        f"memory of an update at size {peak['size']}: planned {readable(peak['planned'])}, peak {measured}, "
        f"peak ÷ plan {timing.cell(peak['peak ÷ plan'])}"
    )
    names = tuple(found["precisions"][0])
    lines += ["", timing.header(names), *(timing.row(*entry.values()) for entry in found["precisions"])]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=list(WORK), default="published" if ON_GPU else "tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no_compile", action="store_true")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench_gpu"))
    options = parser.parse_args(arguments)
    if not ON_GPU:
        torch.set_num_threads(1)
    found = measure(options)
    page = written(found)
    print(page)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / "bench_gpu.md").write_text(page)
    (options.output_dir / "bench_gpu.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
