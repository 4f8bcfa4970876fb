"""Supervised warm start: ``python -m pirl_jax.sft --config_path=cfg.json``.

LeRobot's training config and dialect (``dataset.repo_id``, ``policy.type=xvla``, ``--a.b=c``,
``--resume=true``) plus ``vlm_lr_scale``; LeRobot's optimiser groups, learning-rate schedule and checkpoints.
Meets ``bridge`` inside ``main()``.
"""

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from pirl_jax import checkpoint
from pirl_jax.command import run_command
from pirl_jax.metrics import MetricsWriter, wandb_sinks
from pirl_jax.optim import SupervisedOptimizer
from pirl_jax.typing import Array, Bool, Float, Int, PRNGKeyArray, UInt8
from pirl_jax.xvla import BUFFERS, XVLA, XVLAConfig, init_params, normalize_images, sample_times

logger = logging.getLogger(__name__)

PyTree = Any


class Batch(NamedTuple):
    """Frames with the action chunks that follow them, in host memory."""

    images: UInt8[np.ndarray, "B V 3 h w"]
    tokens: Int[np.ndarray, "B N"]
    proprio: Float[np.ndarray, "B P"]
    """Padded to the network's proprioception."""
    domain_id: Int[np.ndarray, " B"]
    action: Float[np.ndarray, "B H n"]
    """The robot's channels; the model pads them to its own."""
    action_is_pad: Bool[np.ndarray, "B H"]
    """Steps past the episode's end, which repeat its last action. X-VLA's loss counts them like others."""


@flax.struct.dataclass
class TrainState:
    """What a step changes, and what a checkpoint holds."""

    params: PyTree
    """Trainable parameters only."""
    opt_state: optax.OptState
    key: PRNGKeyArray
    """Never changes: each step folds ``step`` into it, so a resumed run draws what it would have."""
    step: Int[Array, ""]


Step = Callable[[TrainState, PyTree, Batch], tuple[TrainState, dict[str, Array]]]
"""``step(state, frozen, batch) -> (state, metrics)``; ``state`` is donated."""


def split(params: PyTree, is_frozen: Callable[[str], bool]) -> tuple[PyTree, PyTree]:
    """Return the trainable and the frozen parameters, as nested dicts without empty branches.

    Args:
        params: Nested dict of arrays.
        is_frozen: Decides by a parameter's dotted name.
    """
    parts: tuple[PyTree, PyTree] = ({}, {})
    for path, leaf in _leaves(params):
        node = parts[is_frozen(".".join(path))]
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return parts


def merge(trainable: PyTree, frozen: PyTree) -> PyTree:
    """Undo ``split``."""
    merged = dict(trainable)
    for name, branch in frozen.items():
        merged[name] = merge(merged[name], branch) if name in merged else branch
    return merged


def create(params: PyTree, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Return the state before the first step; ``params`` are the trainable ones, in buffers of their own."""
    # With their dtypes spelled out: weakly typed leaves would have the step compiled a second time.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, leaf.dtype), params)
    return TrainState(params, optimizer.init(params), jax.random.key(seed), jnp.zeros((), jnp.int32))


def make_step(config: XVLAConfig, optimizer: optax.GradientTransformation) -> Step:
    """Return one jitted optimiser step on X-VLA's loss.

    Times are stratified over the batch and the noise is drawn as in LeRobot's ``XVLAModel.forward``. Images
    stay bytes until inside the step.
    """
    model = XVLA(config)

    def loss_fn(params: PyTree, frozen: PyTree, batch: Batch, key: PRNGKeyArray) -> tuple[Array, Any]:
        size = batch.action.shape[0]
        time_key, noise_key = jax.random.split(key)
        losses: Any = model.apply(
            {"params": merge(params, frozen)},
            normalize_images(jnp.asarray(batch.images)),
            batch.tokens,
            batch.proprio,
            batch.domain_id,
            batch.action,
            jax.random.normal(noise_key, (size, config.chunk_size, config.dim_action)),
            sample_times(time_key, size),
            method="supervised_loss",
        )
        return jnp.stack(list(losses.values())).sum(), losses

    def step(state: TrainState, frozen: PyTree, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, frozen, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {"train/loss": loss, "train/grad_norm": optax.tree.norm(grads)}
        metrics |= {f"train/{name}": value for name, value in losses.items()}
        params = optax.apply_updates(state.params, updates)
        return dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0)


def fit(
    state: TrainState,
    frozen: PyTree,
    step: Step,
    batches: Iterator[Batch],
    total_steps: int,
    stop: threading.Event | None = None,
) -> Iterator[tuple[int, TrainState, dict[str, Array]]]:
    """Yield ``(steps done, state, metrics)`` after each step, until ``total_steps`` or ``stop``.

    The yielded state is donated to the next step: copy what is to outlive it.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    while (done := int(state.step)) < total_steps and not (stop and stop.is_set()):
        state, metrics = step(state, frozen, next(batches))
        loss = float(metrics["train/loss"])
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {done + 1} is {loss}. Lower policy.optimizer_lr, or look for non-finite "
                "values in the dataset."
            )
        yield done + 1, state, metrics


def train(cfg: Any) -> None:
    """Run a validated ``SFTConfig`` to its last step, or to a signal.

    Raises:
        ValueError: A setting, the dataset or a checkpoint does not fit; says which and what to do.
        FloatingPointError: The loss is not finite.
    """
    from bridge.dataset import batches, load_dataset
    from bridge.export import export_pretrained, policy_config
    from bridge.weights import load_params

    if cfg.policy is None or cfg.policy.type != "xvla":
        raise ValueError(f"pirl_jax.sft trains policy.type=xvla; got {getattr(cfg.policy, 'type', None)!r}.")
    dataset = load_dataset(cfg)
    config = policy_config(cfg.policy)
    if cfg.policy.pretrained_path is None:
        params = init_params(config, jax.random.key(cfg.seed))
    else:
        _, params = load_params(cfg.policy.pretrained_path)
    recipe = dataclasses.replace(SupervisedOptimizer.from_config(config), vlm_lr_scale=cfg.vlm_lr_scale)
    trainable, frozen = split(params, lambda name: recipe.is_frozen(name) or name.split(".")[-1] in BUFFERS)
    if not trainable:
        raise ValueError(
            "the policy's freezing flags freeze every parameter; unset one of policy.freeze_* or train_*."
        )
    optimizer = recipe.build(trainable, cfg.steps)
    state = create(trainable, optimizer, cfg.seed)
    if cfg.resume:
        state = checkpoint.restore(
            Path(cfg.checkpoint_path) / checkpoint.TRAINING_STATE / checkpoint.ORBAX, state
        )
        logger.info("resumed from %s at step %d", cfg.checkpoint_path, int(state.step))
    start = int(state.step)
    count = sum(leaf.size for leaf in jax.tree.leaves(trainable))
    logger.info("%d frames, %s trainable parameters, %d steps", dataset.num_frames, f"{count:,}", cfg.steps)

    def export(folder: Path, host_state: TrainState) -> None:
        export_pretrained(merge(host_state.params, frozen), cfg, folder)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    output_dir = Path(cfg.output_dir)
    with (
        checkpoint.CheckpointWriter(output_dir, cfg.steps) as writer,
        MetricsWriter(output_dir, start, wandb_sinks(cfg.wandb, cfg.to_dict(), output_dir)) as metrics_file,
    ):
        data = batches(dataset, cfg.policy, cfg.batch_size, cfg.seed, start, cfg.num_workers)
        schedule = recipe.schedule(cfg.steps)
        done = saved = logged = start
        since = time.perf_counter()
        step = make_step(config, optimizer)
        for done, current, metrics in fit(state, jax.device_put(frozen), step, data, cfg.steps, stop):
            state = current  # the one before was donated
            if done == cfg.steps or (cfg.log_freq > 0 and done % cfg.log_freq == 0):
                seconds = (time.perf_counter() - since) / (done - logged)
                rates = {
                    "train/lr": recipe.lr * schedule(jnp.asarray(done - 1)),
                    "train/update_s": seconds,
                    "train/samples_per_s": cfg.batch_size / seconds,
                    "train/epoch": done * cfg.batch_size / dataset.num_frames,
                }
                metrics_file.write(done, metrics | rates)
                logged, since = done, time.perf_counter()
            if cfg.save_checkpoint and cfg.save_freq > 0 and done % cfg.save_freq == 0:
                writer.save(done, state, export)
                saved = done
        if cfg.save_checkpoint and saved != done:
            writer.save(done, state, export)
    logger.info("done after %d steps: %s", done, output_dir)


def _leaves(params: PyTree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, node in params.items():
        if isinstance(node, dict):
            yield from _leaves(node, (*path, name))
        else:
            yield (*path, name), node


def main() -> None:
    """Parse the command line in LeRobot's dialect and train."""

    def config_class() -> type:
        from bridge.sft_config import SFTConfig

        return SFTConfig

    run_command(train, config_class)


if __name__ == "__main__":
    main()
