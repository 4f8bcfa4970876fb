"""The learner: ``python -m pirl_jax.learner --config_path=cfg.json``.

Puts the parts together; imports ``bridge`` inside functions only. LeRobot's
config dialect (``--a.b=c`` overrides, ``--policy.path``, ``--resume=true``); the same JSON starts the actors.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from pirl_jax.command import run_command
from pirl_jax.console.progress import working
from pirl_jax.ending import Stop, end
from pirl_jax.files import write_file, write_json
from pirl_jax.linear import check_precision
from pirl_jax.placement import Placement, place
from pirl_jax.policy import FlowPolicy
from pirl_jax.rollout.shelf import Shelf
from pirl_jax.run_folder.layout import CURVE, STATUS, TRAIN_CONFIG, read_step
from pirl_jax.run_folder.lock import occupied
from pirl_jax.serving.service import PolicyService
from pirl_jax.training import checkpoint, compilations, loop, storage
from pirl_jax.training.budget import budget, check_device, give_back_what_is_freed
from pirl_jax.training.evaluations import Evaluated, Evaluations
from pirl_jax.training.fit import fit
from pirl_jax.training.kept import Kept, keeps
from pirl_jax.training.metrics import PC_SUCCESS, MetricsWriter, evaluated, read, updates
from pirl_jax.training.needs import product_rate, table
from pirl_jax.training.parts import Parts, assemble, first_state, trained_group
from pirl_jax.training.plan import Observation, Plan, size_of
from pirl_jax.training.saves import Cadence, Saves
from pirl_jax.training.trackers import trackers
from pirl_jax.training.trained import summary
from pirl_jax.training.written import written
from pirl_jax.typing import Params
from pirl_jax.update import critic, state
from pirl_jax.update.demonstrations import Demonstrations, encode
from pirl_jax.xvla.policy import XVLAFlowPolicy

logger = logging.getLogger(__name__)

_WAITING = (
    "waiting for actors: python -m lerobot.rl.actor, with this config and policy, "
    "--env.discover_packages_path=bridge.plugin and an --output_dir of its own"
)


class Run(NamedTuple):
    """What a config stands for, loaded and checked."""

    policy: FlowPolicy
    recipe: Any
    """The ``Recipe`` with the run's settings (``bridge.plugin.recipe_config.PiRLConfig``)."""
    frozen: Params
    """The encoder's parameters, as shapes."""
    shapes: state.TrainState
    """What an update changes, as shapes."""
    start: Callable[[Params], state.TrainState]
    """Makes, of the base's trainable parameters, the state before the first update."""
    placement: Placement
    observation: Observation
    spec: Any
    """Sizes of the episodes to come (``bridge.wire.spec.EpisodeSpec``)."""
    agreement: dict[str, Any]
    """What whoever acts must have in common with this learner: actors, or policy servers."""
    about: dict[str, Any]
    """What a checkpoint has to say beside the step."""


def load(cfg: Any) -> tuple[Run, Params, Params]:
    """Read the base checkpoint of a validated ``TrainRLServerPipelineConfig``.

    Returns:
        The run, and the base's trainable and frozen parameters, in host memory.

    Raises:
        ValueError: A setting, checkpoint or weight does not fit; says which and what to do.
    """
    from bridge.plugin.agreement import FROZEN, fingerprint
    from bridge.settings.learner_config import check, episode_spec
    from bridge.weights.announced import agreed_domain, announced, check_action_stats, check_policy
    from bridge.weights.export import policy_config
    from bridge.weights.folder import load_params
    from bridge.weights.saved import about, base_of, begun_with, check_frozen
    from bridge.weights.state_dict import check_params, to_torch_state

    policy_cfg, recipe, start = check(cfg)
    base = base_of(start.parent) if cfg.resume else start
    check_device(recipe.launch.learner_devices, "algorithm.launch.learner_devices")
    check_device(recipe.launch.learner_gpus, "algorithm.launch.learner_gpus")
    check_precision(recipe.head_precision, jax.default_backend())
    placement = place(recipe.mesh)
    said = announced(start)
    agreed_domain(said, None, getattr(cfg.env, "domain_id", None), num_domains=policy_cfg.num_domains)
    check_policy(said, policy_cfg)
    check_action_stats(said, recipe.dataset_stats)
    # The config, not the checkpoint, says how the policy is run: --policy.num_denoising_steps=… reaches both
    # sides.
    config = policy_config(policy_cfg)
    params = check_params(load_params(base)[1], config)
    policy = XVLAFlowPolicy(config, recipe.trainable, recipe.head_precision)
    trainable, frozen = policy.split(params)
    first = partial(first_state, policy, recipe, config.dim_proprio, cfg.seed)
    shapes = placement.split_shapes(jax.eval_shape(first, trainable))
    logger.info(summary(shapes.params | frozen, trained_group(policy)))
    spec = episode_spec(policy_cfg, config, recipe.noise, recipe.rollout.max_chunks, cfg.env)
    known = about(frozen, begun_with(start.parent) if cfg.resume else start)
    if cfg.resume:
        check_frozen(start.parent, base, known)
    agreement = {**recipe.agreement(), FROZEN: fingerprint(to_torch_state(frozen))}
    images = (len(spec.image_keys), *spec.image_shape)
    observation = Observation(images, spec.num_tokens, config.dim_proprio, config.real_action_dim)
    kept = placement.whole_shapes(jax.eval_shape(lambda tree: tree, frozen))
    run = Run(
        *(policy, recipe, kept, shapes, lambda params: placement.moved(first(params)), placement),
        *(observation, spec, agreement, known),
    )
    return run, trainable, frozen


def fitted(
    run: Run, cfg: Any, beside: Mapping[str, int] = MappingProxyType({}), saves: bool = True
) -> tuple[Parts, Shelf]:
    """Compile what the run will do, and choose how much of a minibatch is in work at a time.

    Args:
        run: not started.
        cfg: its config.
        beside: bytes of what else will lie on the device, by name.
        saves: whether checkpoints will be written.

    Returns:
        What a turn of the loop is made of, and where encoded observations will lie.

    Raises:
        ValueError: Device, host or disk is too small; says what is needed and what to change.
    """
    from bridge.settings.saving import cadence_of

    compilations.keep_on_disk()
    value = critic.value_function(run.recipe.critic.hidden_dims)

    recipe = run.recipe
    parts = assemble(run.policy, value, recipe, placement=run.placement)
    plan = Plan(parts, run.frozen, run.shapes, run.observation)
    devices, on_cpu = run.placement.devices, jax.default_backend() == "cpu"
    memory = budget(recipe.memory_gb, "algorithm.memory_gb")
    if on_cpu and recipe.memory_gb is None:  # a CPU's devices share its memory
        memory = dataclasses.replace(memory, size=memory.size // devices)
    cadence = Cadence(**cadence_of(cfg))
    every = cadence.every or cfg.steps
    count = cfg.steps // every + 1 if saves and cadence.saves else 0
    export = size_of(run.frozen) + size_of(run.shapes.params)
    sizes = storage.checkpoint_sizes(size_of(run.shapes), export, count, every, recipe.checkpoint)
    bound = storage.rows_bound(recipe.rows_gb)
    stored = storage.storage(plan, bound, sizes, on_cpu)
    shared = on_cpu and recipe.memory_gb is None
    if shared:  # it is the same memory
        beside = {**beside, **stored.memory}
    with working("compiling what the run will do, to see what it takes", plan.known_as):
        plan, needs = fit(plan, memory, beside)
    parts, device = plan.parts, 0
    if on_cpu:
        device = devices * needs.device - sum(beside.values())
        stored, recipe = storage.settled(stored, plan, device, recipe.launch.actors * needs.actor)
        parts = dataclasses.replace(parts, recipe=recipe)
    logger.info("\n".join([*table(plan, needs, memory, product_rate()), *storage.table(stored, shared)]))
    storage.check(stored, Path(cfg.output_dir), device)
    return parts, Shelf(bound)


def resumed(cfg: Any, shapes: state.TrainState) -> state.TrainState:
    """Read the state of the checkpoint; what the command line has changed since wins over what is in it.

    Args:
        cfg: with ``resume``.
        shapes: of the state, made of the present settings.

    Raises:
        ValueError: The checkpoint is of another policy or recipe; says where it differs.
    """
    from bridge.settings.resumed import changes

    restored = checkpoint.restore(cfg.checkpoint_path, shapes)
    logger.info("resumed from %s at update %d", cfg.checkpoint_path, int(restored.updates))
    changed = changes(cfg)
    for name, (saved, now) in changed.items():
        logger.info("%s is %s from here on; the saved run had %s", name, now, saved)
    # Else an adapted learning rate goes on where it was.
    if "algorithm.optimizer.lr" in changed or not cfg.algorithm.optimizer.adaptive_lr:
        restored = restored.replace(lr=state.first_lr(cfg.algorithm.optimizer))
    if "seed" in changed:
        restored = restored.replace(key=state.first_key(cfg.seed))
    if "algorithm.rollout.group_size" in changed:
        # Groups begin at multiples of their size: numbers up to the next are left out.
        size = cfg.algorithm.rollout.group_size
        restored = restored.replace(episodes=-(-restored.episodes // size) * size)
    return restored


def demonstrations_of(cfg: Any, run: Run, encoder: Params) -> Demonstrations | None:
    """Read and encode what ``algorithm.demonstrations`` wants of the dataset; nothing if it is off.

    Raises:
        ValueError: The dataset is missing or does not fit; says why.
    """
    wanted = run.recipe.demonstrations
    if not wanted.coef:
        return None
    from bridge.datasets.demonstrations import load_demonstrations
    from bridge.weights.export import policy_config

    frames = load_demonstrations(cfg, policy_config(cfg.policy), run.spec, wanted.max_samples)
    logger.info(
        "%d frames of %s are learned from beside the episodes", len(frames.action), cfg.dataset.repo_id
    )
    return encode(run.policy, encoder, frames, run.placement)


def policy_service(run: Run, playing: Callable[[], int]) -> tuple[PolicyService | None, dict[str, int]]:
    """Return the policy server of a served run, compiled, and what it takes of the device, by name.

    Args:
        run: not started.
        playing: how many episodes are played at the moment.
    """
    if run.recipe.inference == "local":
        return None, {}
    recipe, seen = run.recipe, run.observation
    service = PolicyService(run.policy, recipe.noise, recipe.serve, playing, placement=run.placement)
    sizes = seen.images, seen.num_tokens, seen.dim_proprio
    with working("compiling what the policy server will do"):
        taken = service.compile(run.frozen, run.shapes.params, *sizes)
    return service, {"the policy server": taken}


def learn(cfg: Any) -> None:
    """Run the learner of a validated ``TrainRLServerPipelineConfig`` until ``cfg.steps`` updates or a signal.

    Raises:
        ValueError: A setting, checkpoint or weight does not fit; says which and what to do.
        OSError: The port is taken, or the last checkpoint could not be written.
        SystemExit: A signal has stopped it.
    """
    start, output_dir = cfg.checkpoint_path, Path(cfg.output_dir)
    if cfg.resume and (done := read_step(start)) >= cfg.steps:
        logger.info("this run is done: %s is of update %d of %d. Give --steps=N", start, done, cfg.steps)
        return
    with occupied(output_dir):
        stop, done = _learn(cfg, output_dir)
    end(stop, output_dir, done, cfg.steps, "pirl_jax.learner")


def _learn(cfg: Any, output_dir: Path) -> tuple[Stop, int]:
    """Return what may have stopped the run, and the updates that are done."""
    from bridge.actors import Port, assignments_of
    from bridge.card.hub import push_at_end
    from bridge.settings.evaluation import of_run
    from bridge.settings.saving import cadence_of
    from bridge.videos.recorder import Recorder
    from bridge.weights.export import export_pretrained

    give_back_what_is_freed()
    run, trainable, frozen = load(cfg)
    recipe = run.recipe
    service, beside = (
        policy_service(run, lambda: assignments.playing) if recipe.serve.mode == "learner" else (None, {})
    )
    parts, shelf = fitted(run, cfg, beside)
    encoder = run.placement.whole(frozen)
    if service:
        service.begin(encoder)
    del frozen  # one copy is enough, and what is free can be taken by the next
    trainable = {} if cfg.resume else trainable
    train_state = run.start(trainable) if trainable else resumed(cfg, run.shapes)
    del trainable
    demonstrations = demonstrations_of(cfg, run, encoder)

    def export(folder: Path, host_state: state.TrainState) -> None:
        params = run.policy.merge(host_state.params, run.placement.first(encoder))
        export_pretrained(params, cfg, folder, image_size=run.spec.image_shape[-2:])

    assignments, report = assignments_of(cfg, loop.window(recipe), int(train_state.episodes))
    done, (kept, what) = int(train_state.updates), _kept(parts, train_state)
    port = Port(recipe, run.spec, run.agreement, service, output_dir / STATUS)
    with (
        service or nullcontext(),
        Recorder(recipe.videos, output_dir) as recorder,
        port.open(assignments, cfg.steps, recipe.rollout.episodes_per_update) as server,
    ):
        stop = Stop(what)
        write_json(output_dir / TRAIN_CONFIG, cfg.to_dict())  # for whoever looks before the first checkpoint
        with (
            checkpoint.CheckpointWriter(
                output_dir, cfg.steps, recipe.checkpoint, done if cfg.resume else None
            ) as writer,
            MetricsWriter(output_dir, done, trackers(cfg, output_dir, done)) as log,
        ):
            logger.info(_WAITING)
            recorded = next(reversed(evaluated(read(log.path))), None)
            evaluations = Evaluations(**of_run(cfg), recorded=recorded["step"] if recorded else None)
            received, publish = recorder.passing(server.get), partial(port.publish, server)
            turns = loop.run(
                *(parts, encoder, train_state),
                loop.Actors(received, publish, assignments, report, evaluations),
                total_updates=cfg.steps,
                stop=stop,
                demonstrations=demonstrations,
                release=writer.release,
                shelf=shelf,
                kept=kept,
                encoded=service and service.encoded,
            )
            served = service.metrics if service else dict
            saves = Saves(writer, Cadence(**cadence_of(cfg)), export, run.about, kept)
            if kept is not None:
                saves.at_once(stop)
            if recorded and recorded["step"] == done and recorded.get(PC_SUCCESS) is not None:
                saves.evaluated(done, recorded[PC_SUCCESS])  # its writer may have been killed before it did
            try:
                done = written(
                    *(turns, log, saves),
                    more=lambda: {"train/save_s": writer.seconds} | server.metrics() | served(),
                    note=partial(_note, log=log, saves=saves, output_dir=output_dir),
                    done=done,
                )
            finally:
                saves.last()  # the end of the run, a signal or a failure: what was learned is not lost
        push_at_end(cfg, output_dir, done)  # while a launch is still answered
    return stop, done


def _kept(parts: Parts, train_state: state.TrainState) -> tuple[Kept | None, str]:
    """Return what keeps the state before an update, if anything does, and what a signal then has done."""
    what = "those before the update that runs are saved, and it is given up"
    if keeps(parts.recipe.watchdog, size_of(train_state), jax.default_backend() == "cpu"):
        return Kept(parts.placement), what
    return None, f"{what} unless it has begun to change the policy: then it is finished first"


def _note(found: Evaluated, log: MetricsWriter, saves: Saves, output_dir: Path) -> None:
    """Write down what an evaluation has found, and draw the run as it stands."""
    from bridge.figures.learning_curve import learning_curve

    log.write(found.update, found.metrics)
    if (rate := found.metrics.get(PC_SUCCESS)) is not None:
        saves.evaluated(found.update, rate)
    rows, picture = read(log.path), output_dir / CURVE
    if not updates(rows):
        return
    try:
        write_file(picture, lambda path: learning_curve(rows, path, str(output_dir)))
    except OSError as error:  # it costs the run nothing
        logger.warning("%s could not be drawn: %s", picture, error)


def command(run: Callable[[Any], None], only_looks: bool = False) -> None:
    """Parse the command line as an RL run with this plugin and ``run`` it; see ``run_command``."""

    def config_class() -> type:
        from bridge import plugin
        from bridge.plugin.command_line import prepare
        from bridge.settings.learner_config import LearnerConfig

        plugin.register()
        prepare()
        return LearnerConfig

    run_command(run, config_class, only_looks)


def main() -> None:
    """Run the learner."""
    from bridge.command.help import say_first

    say_first("train", "All settings of a run follow, LeRobot's and the recipe's, after some seconds:")
    command(learn)


if __name__ == "__main__":
    main()
