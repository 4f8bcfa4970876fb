"""The commands that ``pirl`` knows."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command: what it does, and how it is started without ``pirl``."""

    module: str
    """``python -m`` starts it."""
    what: str
    """For people, in a line."""
    examples: tuple[tuple[str, str], ...]
    """What for, and its arguments; the everyday case first."""
    docs: tuple[str, ...]
    """Pages of the repository that say more."""


PLUGIN = "bridge.plugin"
ACTOR = "lerobot.rl.actor"

_GO_ON = "--config_path=outputs/run/checkpoints/last/pretrained_model/train_config.json --resume=true"

COMMANDS = {
    "launch": Entry(
        "bridge.launch",
        "a whole run: learner and actors, started and looked after",
        (
            ("eight actors on this machine", "--config_path=cfg.json --output_dir=outputs/run --actors=8"),
            (
                "begins, or goes on from its last checkpoint",
                "--config_path=cfg.json --output_dir=outputs/run --policy.path=me/xvla --resume=auto",
            ),
            (
                "one policy server for all actors",
                "--config_path=cfg.json --output_dir=outputs/run --actors=16 --algorithm.inference=served",
            ),
        ),
        ("docs/scaling.md", "docs/troubleshooting.md"),
    ),
    "train": Entry(
        "pirl_jax.learner",
        "a run's learner alone",
        (
            ("it waits for actors", "--config_path=cfg.json --policy.path=me/xvla"),
            ("another recipe", '"--algorithm=include configs/presets/grpo.json" --config_path=cfg.json'),
            ("goes on from the last checkpoint", _GO_ON),
        ),
        ("docs/configuration.md", "docs/algorithms.md", "docs/metrics.md"),
    ),
    "actor": Entry(
        ACTOR,
        "one of its actors: LeRobot's own, with the plugin",
        (
            (
                "with the config and policy of its learner, and a folder of its own",
                "--config_path=cfg.json --policy.path=me/xvla --output_dir=outputs/actor0",
            ),
            (
                "the second one, named in logs",
                "--config_path=cfg.json --policy.path=me/xvla --output_dir=outputs/actor1 --env.actor_id=1",
            ),
        ),
        ("docs/actors.md",),
    ),
    "serve": Entry(
        "pirl_jax.serve",
        "a policy server, which acts for many actors",
        (
            ("of a run with algorithm.serve.mode=process", "--config_path=cfg.json --policy.path=me/xvla"),
            ("its second server", "--config_path=cfg.json --policy.path=me/xvla --replica=1"),
        ),
        ("docs/serving.md",),
    ),
    "doctor": Entry(
        "pirl_jax.doctor",
        "whether a run is set up to learn, in words",
        (
            ("sixteen episodes by a stock actor", "--config_path=cfg.json --policy.path=me/xvla"),
            ("fewer, within five minutes", "--config_path=cfg.json --episodes=8 --patience=300"),
        ),
        ("docs/troubleshooting.md", "docs/algorithms.md"),
    ),
    "watch": Entry(
        "bridge.watch",
        "a run as a page in the browser",
        (
            ("in this machine's browser", "outputs/run --open"),
            ("as it stands, in a file to send", "outputs/run --export=run.html"),
        ),
        ("docs/watching.md",),
    ),
    "eval": Entry(
        "bridge.evaluate",
        "evaluations on LIBERO, with intervals",
        (
            (
                "four suites, 50 episodes a task",
                "outputs/run/checkpoints/best/pretrained_model --preset=matrix",
            ),
            (
                "before and after, with the run's learning curve",
                "--compare outputs/eval/before outputs/eval/after --metrics=outputs/run/metrics.jsonl",
            ),
            (
                "three training runs together",
                "--aggregate outputs/eval/seed0 outputs/eval/seed1 outputs/eval/seed2",
            ),
        ),
        ("docs/libero.md",),
    ),
    "card": Entry(
        "bridge.card",
        "the model card of a policy, and both onto the hub",
        (
            ("a card of a run's last checkpoint, beside it", "outputs/run"),
            ("policy and card onto the hub", "outputs/run/checkpoints/best --push --repo_id=me/xvla-rl"),
        ),
        ("docs/sharing.md",),
    ),
    "convert": Entry(
        "bridge.weights.command",
        "an X-VLA checkpoint in the other format, or for another use",
        (
            (
                "for lerobot-train",
                "outputs/run/checkpoints/best/pretrained_model for_training --for=train",
            ),
            ("the policy of any checkpoint that a run has kept", "outputs/run policy --step=120"),
            ("from the hub to Orbax", "me/xvla xvla_orbax"),
        ),
        ("docs/libero.md",),
    ),
    "sft": Entry(
        "pirl_jax.sft",
        "the supervised warm start",
        (
            ("by a config", "--config_path=sft.json"),
            ("on a dataset that lies here", "--config_path=sft.json --dataset.root=demos/dataset"),
            ("goes on from the last checkpoint", _GO_ON),
        ),
        ("docs/libero.md", "docs/configuration.md"),
    ),
    "record": Entry(
        "bridge.libero.record",
        "scripted demonstrations of LIBERO's tasks, as a dataset",
        (
            ("ten of each task of a suite", "--suites=libero_object --episodes=10 --output_dir=demos"),
            (
                "of one task, beside the thing by 15 mm, from some of its states",
                "--tasks=0 --aim_offset_mm=15,0 --init_states=20:50 --output_dir=beside",
            ),
        ),
        ("docs/libero.md",),
    ),
    "experts": Entry(
        "bridge.libero.experts",
        "how often the scripted expert succeeds in LIBERO's tasks",
        (
            ("twenty episodes of each task of a suite", "--suites=libero_object --output_dir=experts"),
            ("of an expert of yours", "--expert=mine.py:Mine --suites=libero_goal --tasks=2,3"),
        ),
        ("docs/libero.md",),
    ),
    "setup": Entry(
        "bridge.libero.setup",
        "LIBERO made ready: config, assets, renderers",
        (("downloads the assets, once", ""), ("takes those in a folder", "--assets=libero_assets")),
        ("docs/libero.md",),
    ),
    "demo": Entry(
        "bridge.demo",
        "all of it on one small task, from nothing",
        (
            ("on two CPU cores", "--output_dir=outputs/demo"),
            ("with another seed, judged by more episodes", "--seed=1 --episodes=500"),
        ),
        ("README.md", "docs/results.md"),
    ),
}
"""Name → command, in the order in which people need them."""
