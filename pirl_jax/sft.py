"""Supervised warm start: ``python -m pirl_jax.sft --config_path=cfg.json``.

LeRobot's training config and dialect (``dataset.repo_id``, ``policy.type=xvla``, ``--a.b=c``,
``--resume=true``) plus ``vlm_lr_scale``; LeRobot's optimiser groups, learning-rate schedule and checkpoints.
Meets ``bridge`` inside functions only.
"""

import dataclasses
import itertools
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pirl_jax.command import run_command
from pirl_jax.console.progress import working
from pirl_jax.ending import Stop, end
from pirl_jax.files import write_file
from pirl_jax.run_folder.layout import CURVE, METRICS
from pirl_jax.run_folder.lock import occupied
from pirl_jax.supervised.frames import Frames
from pirl_jax.supervised.optimizer import SupervisedOptimizer
from pirl_jax.supervised.step import Step, SupervisedState, create, fit, split
from pirl_jax.training import checkpoint, compilations
from pirl_jax.training.budget import allowed, budget, give_back_what_is_freed, readable
from pirl_jax.training.metrics import UPDATE_S, MetricsWriter, read
from pirl_jax.training.plan import memory_of, size_of
from pirl_jax.training.saves import Cadence, Saves
from pirl_jax.training.trackers import trackers
from pirl_jax.training.trained import summary
from pirl_jax.trees import merge
from pirl_jax.typing import Params
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.init import init_params
from pirl_jax.xvla.trainable import trained_part

logger = logging.getLogger(__name__)

CONSOLE_KEYS = ("train/loss", "train/grad_norm", "train/lr", UPDATE_S)


def train(cfg: Any) -> None:
    """Run a validated ``SFTConfig`` to its last step, or to a signal.

    Raises:
        ValueError: A setting, the dataset or a checkpoint does not fit; says which and what to do.
        FloatingPointError: The loss is not finite.
        OSError: The last checkpoint could not be written.
        SystemExit: A signal has stopped it.
    """
    output_dir = Path(cfg.output_dir)
    with occupied(output_dir):
        stop, done = _train(cfg, output_dir)
        _draw(output_dir)
    end(stop, output_dir, done, cfg.steps, "pirl_jax.sft")


def _train(cfg: Any, output_dir: Path) -> tuple[Stop, int]:
    """Return what may have stopped the run, and the steps that are done."""
    from bridge.card.hub import push_at_end
    from bridge.datasets.dataset import batches, domain_ids, load_dataset
    from bridge.weights.export import export_pretrained, policy_config

    give_back_what_is_freed()
    if cfg.policy is None or cfg.policy.type != "xvla":
        raise ValueError(f"pirl_jax.sft trains policy.type=xvla; got {getattr(cfg.policy, 'type', None)!r}.")
    dataset = load_dataset(cfg)
    config = policy_config(cfg.policy)
    params, domain = start_from(cfg, config, domain_ids(dataset, cfg.policy))
    of_policy = SupervisedOptimizer.from_config(config)
    recipe = dataclasses.replace(of_policy, vlm_lr_scale=cfg.vlm_lr_scale, **cfg.optimizer_numbers())
    group = partial(trained_part, recipe)
    logger.info(summary(params, group))
    trainable, frozen = split(params, lambda name: group(name) is None)
    optimizer = recipe.build(trainable, cfg.steps)
    first = partial(create, optimizer=optimizer, seed=cfg.seed)
    state = resumed(cfg, jax.eval_shape(first, trainable)) if cfg.resume else first(trainable)
    del params, trainable  # the state has copies of what is trained
    known = said_of_frozen(cfg, frozen)
    start = int(state.step)
    logger.info("%d frames, domain %d, %d steps", dataset.num_frames, domain, cfg.steps)

    def export(folder: Path, host_state: SupervisedState) -> None:
        export_pretrained(merge(host_state.params, frozen), cfg, folder, domain_id=domain, image_size=size)

    data = batches(dataset, cfg.policy, cfg.batch_size, cfg.seed, start, cfg.num_workers, domain_id=domain)
    first_batch = next(data)
    size = first_batch.images.shape[-2:]
    step = fitted(cfg, config, optimizer, state, frozen, first_batch)
    data = itertools.chain([first_batch], data)
    stop = Stop("the step that runs is finished and saved")
    with (
        checkpoint.CheckpointWriter(output_dir, cfg.steps, cfg.checkpoint) as writer,
        MetricsWriter(
            output_dir, start, trackers(cfg, output_dir, start), cfg.steps, CONSOLE_KEYS
        ) as metrics_file,
    ):
        schedule = recipe.schedule(cfg.steps)
        done = logged = start
        since = time.perf_counter()
        saves = Saves(writer, Cadence(max(0, cfg.save_freq), 0, cfg.save_checkpoint), export, known)
        try:
            for done, current, metrics in fit(state, jax.device_put(frozen), step, data, cfg.steps, stop):
                state = current  # the one before was donated
                if done == cfg.steps or (cfg.log_freq > 0 and done % cfg.log_freq == 0):
                    seconds = (time.perf_counter() - since) / (done - logged)
                    rates = {
                        "train/lr": recipe.lr * schedule(jnp.asarray(done - 1)),
                        UPDATE_S: seconds,
                        "train/samples_per_s": cfg.batch_size / seconds,
                        "train/epoch": done * cfg.batch_size / dataset.num_frames,
                    }
                    metrics_file.write(done, metrics | rates)
                    logged, since = done, time.perf_counter()
                saves.after(done, state)
                writer.release()  # the next step donates it
        finally:
            saves.last()
    push_at_end(cfg, output_dir, done)
    return stop, done


def _draw(output_dir: Path) -> None:
    """Leave a picture of the loss beside the metrics; one that cannot be written costs the run nothing."""
    from bridge.figures.warm_start import warm_start_curve

    rows = [row for row in read(output_dir / METRICS) if row.get("train/loss") is not None]
    if not rows:
        return
    try:
        write_file(output_dir / CURVE, lambda path: warm_start_curve(rows, path, str(output_dir)))
    except OSError as error:
        logger.warning("%s could not be drawn: %s", output_dir / CURVE, error)
    else:
        first, last = rows[0], rows[-1]
        logger.info(
            "loss %.3g at step %d, %.3g at step %d: %s",
            *(first["train/loss"], first["step"], last["train/loss"], last["step"], output_dir / CURVE),
        )


def fitted(
    cfg: Any,
    config: XVLAConfig,
    optimizer: optax.GradientTransformation,
    state: SupervisedState,
    frozen: Params,
    batch: Frames,
) -> Step:
    """Compile the step, worked off in as few parts as the memory allows.

    Args:
        cfg: with ``microbatch_size`` and ``memory_gb``.
        config: of the network.
        optimizer: as built for the parameters.
        state: before the step, like all that follows of which only the shapes matter.
        frozen: parameters that are not trained.
        batch: of the run.

    Raises:
        ValueError: It cannot fit; says what is needed and what to change.
    """
    compilations.keep_on_disk()
    taken = f"{readable(size_of((state, frozen)))} on {jax.devices()[0].device_kind}"
    memory = budget(cfg.memory_gb, "memory_gb")
    size = cfg.batch_size
    sizes = [n for n in range(size, 0, -1) if size % n == 0]
    if cfg.microbatch_size != "auto":
        sizes = [cfg.microbatch_size]
    needed = 0
    for at_a_time in sizes:
        step = Step(config, optimizer, size // at_a_time)
        with working("compiling the step, to see what it takes", f"{at_a_time} frames of {taken}"):
            needed = memory_of_step(step, state, frozen, batch, at_a_time)
        if needed <= allowed(memory):
            logger.info(
                "device memory: %s of %s (%s), %d frames of a batch of %d at a time",
                *(readable(needed), readable(memory.size), memory.source, at_a_time, size),
            )
            return step
    raise ValueError(
        f"training takes {readable(needed)} with {sizes[-1]} of {size} frames in work at a time, and "
        f"there are {readable(memory.size)} ({memory.source}). Use a larger card, freeze more "
        "(policy.freeze_vision_encoder, policy.freeze_language_encoder), or leave microbatch_size to auto."
    )


def memory_of_step(step: Step, state: SupervisedState, frozen: Params, batch: Frames, at_a_time: int) -> int:
    """Compile a step and return the bytes that training takes of its device; of arrays the shapes matter."""
    frames = Frames(*(array[:at_a_time] for array in batch))
    sums = jax.eval_shape(step.no_sums, state.params)
    noise, times = jax.eval_shape(lambda state: step.drawn(state, at_a_time), state)
    add = memory_of(step.add.lower(state.params, sums, frozen, frames, noise, times).compile())
    apply = memory_of(step.apply.lower(state, sums).compile())
    # The optimiser's moments lie beside what a part's gradient takes, the frozen parameters beside the step.
    return max(
        add.arguments + add.working + size_of((state.opt_state, frames)),
        apply.arguments + apply.working + size_of(frozen),
    )


def said_of_frozen(cfg: Any, frozen: Params) -> dict[str, str | None]:
    """Return what checkpoints say of the parameters that are not trained; check those of a resumed run.

    Raises:
        ValueError: They are not the ones that the run began with.
    """
    from bridge.weights.saved import about, begun_with, check_frozen

    if not cfg.resume:
        return about(frozen, cfg.policy.pretrained_path)
    known = about(frozen, begun_with(Path(cfg.checkpoint_path)))
    check_frozen(Path(cfg.checkpoint_path), cfg.policy.pretrained_path, known)
    return known


def start_from(cfg: Any, config: XVLAConfig, in_dataset: Sequence[int] | None) -> tuple[Params, int]:
    """Return the parameters to begin with, of a checkpoint or drawn, and the domain to train.

    Args:
        cfg: the run's config.
        config: of the network.
        in_dataset: the ids in the dataset's domain column; None without one.

    Raises:
        ValueError: Checkpoint, dataset and config disagree; says on what.
    """
    from bridge.weights.announced import agreed_domain, announced, check_policy, refuse_normalised_actions
    from bridge.weights.folder import load_params
    from bridge.weights.saved import base_of

    base = None
    if cfg.policy.pretrained_path is None:
        params = init_params(config, jax.random.key(cfg.seed))
    else:
        base = announced(cfg.policy.pretrained_path)
        refuse_normalised_actions(base)
        check_policy(base, cfg.policy)
        weights = base_of(Path(cfg.checkpoint_path)) if cfg.resume else cfg.policy.pretrained_path
        _, params = load_params(weights)
    return params, agreed_domain(base, in_dataset, None, cfg.domain_id, num_domains=config.num_domains)


def resumed(cfg: Any, shapes: SupervisedState) -> SupervisedState:
    """Read the state of the checkpoint; what the command line has changed since wins over what is in it.

    Args:
        cfg: with ``resume``.
        shapes: of the state, made of the present settings.

    Raises:
        ValueError: The checkpoint is of another policy; says where it differs.
    """
    from bridge.settings.resumed import changes

    restored = checkpoint.restore(cfg.checkpoint_path, shapes)
    logger.info("resumed from %s at step %d", cfg.checkpoint_path, int(restored.step))
    changed = changes(cfg)
    for name, (saved, now) in changed.items():
        logger.info("%s is %s from here on; the saved run had %s", name, now, saved)
    return dataclasses.replace(restored, key=jax.random.PRNGKey(cfg.seed)) if "seed" in changed else restored


def main() -> None:
    """Parse the command line in LeRobot's dialect and train."""
    from bridge.command.help import say_first

    def config_class() -> type:
        from bridge.plugin.command_line import prepare
        from bridge.settings.sft_config import SFTConfig

        prepare()
        return SFTConfig

    say_first("sft", "All settings follow, most of them LeRobot's, after some seconds:")
    run_command(train, config_class)


if __name__ == "__main__":
    main()
