"""A gradient step's cost in the flow head: JAX over LeRobot's torch code. Run it as a script.

python tests/benchmarks/bench_head.py [tiny|middle|published …] [--rounds N]

Both differentiate the mean square of the head's prediction by all of its parameters, on the same inputs, in
float32, on one pinned core; CPU seconds, medians of rounds that alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "parity")]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lerobot.policies.xvla.soft_transformer import SoftPromptedTransformer as TorchHead  # noqa: E402
from published import published_config  # noqa: E402
from reference import saved_config  # noqa: E402

from bridge.weights import keymap  # noqa: E402
from pirl_jax.xvla.config import XVLAConfig  # noqa: E402
from pirl_jax.xvla.transformer import SoftPromptedTransformer  # noqa: E402

SIZES = {
    "tiny": {"hidden_size": 16, "depth": 1, "num_heads": 2},
    "middle": {"hidden_size": 384, "depth": 6, "num_heads": 6},
    "published": {},
}
BATCH, IMAGE_TOKENS, TEXT_TOKENS = 8, 50, 50


def heads(size: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a gradient step of each head, of equal weights on equal inputs."""
    torch.manual_seed(0)
    settings = published_config(**SIZES[size])
    config = XVLAConfig.from_dict(saved_config(settings))
    width = config.vision.projection_dim
    theirs = TorchHead(
        hidden_size=config.hidden_size,
        multi_modal_input_size=width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        num_domains=config.num_domains,
        dim_action=config.dim_action,
        dim_propio=config.dim_proprio,
        len_soft_prompts=config.len_soft_prompts,
        dim_time=config.dim_time,
        max_len_seq=config.max_len_seq,
        use_hetero_proj=config.use_hetero_proj,
    ).eval()
    inputs = {
        "domain_id": torch.full((BATCH,), 3),
        "vlm_features": torch.randn(BATCH, IMAGE_TOKENS + TEXT_TOKENS, width),
        "aux_visual_inputs": torch.randn(BATCH, 2 * IMAGE_TOKENS, width),
        "action_with_noise": torch.randn(BATCH, config.chunk_size, config.dim_action),
        "proprio": torch.randn(BATCH, config.dim_proprio),
        "t": torch.rand(BATCH),
    }

    def torch_step() -> None:
        theirs.zero_grad(set_to_none=True)
        theirs(**inputs).square().mean().backward()

    params: dict = {}
    for key, tensor in theirs.state_dict().items():
        *parents, leaf = keymap.to_flax_path(f"model.transformer.{key}")[1:]
        node = params
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = jnp.asarray(tensor.numpy())
    ours = SoftPromptedTransformer(config)
    names = ("vlm_features", "aux_visual_inputs", "action_with_noise", "t", "proprio", "domain_id")
    arrays = [jnp.asarray(inputs[name].numpy()) for name in names]
    gradient = jax.jit(jax.grad(lambda p, *x: jnp.square(ours.apply({"params": p}, *x)).mean()))
    with torch.no_grad():
        np.testing.assert_allclose(
            jax.jit(ours.apply)({"params": params}, *arrays), theirs(**inputs).numpy(), rtol=1e-3, atol=1e-3
        )

    def jax_step() -> None:
        jax.block_until_ready(gradient(params, *arrays))

    return jax_step, torch_step


def seconds(step: Callable[[], None], repeats: int) -> float:
    """Return CPU seconds of a step."""
    started = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - started) / repeats


def main() -> None:
    """Print a row a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'head':>10} {'JAX (s)':>10} {'torch (s)':>10} {'ratio':>6}")
    for size in arguments.sizes:
        steps = heads(size)
        repeats = {"tiny": 50, "middle": 3, "published": 1}[size]
        for step in steps:
            step()
        times = [[seconds(step, repeats) for step in steps] for _ in range(arguments.rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*times))
        print(f"{size:>10} {ours:>10.4f} {theirs:>10.4f} {ours / theirs:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
