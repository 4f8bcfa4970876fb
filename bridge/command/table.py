"""The commands that ``pirl`` knows."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command: what it does, and how it is started without ``pirl``."""

    module: str
    """``python -m`` starts it."""
    what: str
    """For people, in a line."""
    example: str
    """Its arguments in an everyday case."""


PLUGIN = "bridge.plugin"
ACTOR = "lerobot.rl.actor"

COMMANDS = {
    "launch": Entry(
        "bridge.launch",
        "a whole run: learner and actors, started and looked after",
        "--config_path=cfg.json --policy.path=me/xvla --output_dir=outputs/run --actors=8 --resume=auto",
    ),
    "train": Entry(
        "pirl_jax.learner", "a run's learner alone", "--config_path=cfg.json --policy.path=me/xvla"
    ),
    "actor": Entry(
        ACTOR,
        "one of its actors: LeRobot's own, with the plugin",
        "--config_path=cfg.json --policy.path=me/xvla --output_dir=outputs/actor0",
    ),
    "serve": Entry(
        "pirl_jax.serve",
        "a policy server, which acts for many actors",
        "--config_path=cfg.json --policy.path=me/xvla --replica=0",
    ),
    "doctor": Entry(
        "pirl_jax.doctor",
        "whether a run is set up to learn, in words",
        "--config_path=cfg.json --policy.path=me/xvla",
    ),
    "watch": Entry("bridge.watch", "a run as a page in the browser", "outputs/run --open"),
    "eval": Entry(
        "bridge.evaluate",
        "evaluations on LIBERO, with intervals",
        "outputs/run/checkpoints/best/pretrained_model --preset=matrix",
    ),
    "card": Entry(
        "bridge.card",
        "the model card of a policy, and both onto the hub",
        "outputs/run/checkpoints/best --push --repo_id=me/xvla-rl",
    ),
    "convert": Entry(
        "bridge.weights.command",
        "an X-VLA checkpoint in the other format, or for another use",
        "outputs/run/checkpoints/best/pretrained_model for_training --for=train",
    ),
    "sft": Entry("pirl_jax.sft", "the supervised warm start", "--config_path=sft.json"),
    "record": Entry(
        "bridge.libero.record",
        "scripted demonstrations of LIBERO's tasks, as a dataset",
        "--suites=libero_object --episodes=10 --output_dir=demos",
    ),
    "setup": Entry("bridge.libero.setup", "LIBERO made ready: config, assets, renderers", ""),
    "demo": Entry("bridge.demo", "all of it on one small task, from nothing", "--output_dir=outputs/demo"),
}
"""Name → command, in the order in which people need them."""
