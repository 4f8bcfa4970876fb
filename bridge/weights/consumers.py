"""Whom an export is for: LeRobot's training and its evaluation disagree on who prepares an X-VLA's images.

``lerobot-train`` leaves it to the policy's preprocessor. ``lerobot-eval`` has LIBERO's processors do it, and
fails on a policy that does it too. No one preprocessor serves both, so an export is for one of them, says in
the name of a file for which, and becomes the other's by ``pirl-convert --for=train|eval``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.weights.beside import CONFIG, PREPROCESSOR, change_config
from bridge.weights.formats import CONSUMERS, Consumer, WeightsError
from pirl_jax.files import read_json, write_json

if TYPE_CHECKING:
    from lerobot.processor import ProcessorStep

_TO_FLOAT, _IMAGENET = "xvla_image_to_float", "xvla_imagenet_normalize"
_DOMAIN, _NORMALIZER = "xvla_add_domain_id", "normalizer_processor"

_NOTICE = {
    "train": "The processors of this policy are for `lerobot-train` and robots (`lerobot-rollout`), and\n"
    "for our learner and `pirl_jax.sft`.\n"
    "For `lerobot-eval` and `pirl-eval`: `pirl-convert --for=eval THIS_FOLDER NEW_FOLDER`\n",
    "eval": "The processors of this policy are for `lerobot-eval` and `pirl-eval`, where LIBERO's own\n"
    "prepare the images, and for our learner and `pirl_jax.sft`.\n"
    "For `lerobot-train` and robots: `pirl-convert --for=train THIS_FOLDER NEW_FOLDER`\n",
}
_MOVED = "Once this folder has been moved or copied: `pirl-convert --moved THIS_FOLDER`\n"


def notice(consumer: Consumer) -> str:
    """Return the name of the file that says whom an export is for."""
    return f"FOR_{consumer.upper()}.md"


def consumer_of(folder: Path) -> Consumer | None:
    """Return whom a folder's preprocessor is for; None where it has none, or prepares images by halves."""
    file = folder / PREPROCESSOR
    names = [step.get("registry_name") for step in read_json(file).get("steps", [])] if file.is_file() else []
    prepares = {_TO_FLOAT, _IMAGENET} & set(names)
    if not names or len(prepares) == 1:
        return None
    return "train" if prepares else "eval"


def prepare_for(folder: Path, consumer: Consumer) -> None:
    """Make a folder's preprocessor the one that a consumer needs; what else it does stays.

    For ``eval`` it loses its normaliser as well, where that changes nothing: ``lerobot-train`` asks for one,
    and stops at its absence instead of training on images that nobody has prepared.

    Args:
        folder: LeRobot's or our format, of an X-VLA. Written to.
        consumer: Whom it is for.

    Raises:
        WeightsError: It has no preprocessor.
        ValueError: Its preprocessor or config is damaged.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        raise WeightsError(
            f"{file} is missing; only a policy with its processors can be made for {consumer}."
        )
    pipeline, config = read_json(file), read_json(folder / CONFIG)
    steps: list[dict[str, Any]] = pipeline.get("steps", [])
    states = {step["state_file"] for step in steps if "state_file" in step}
    (_for_train if consumer == "train" else _for_eval)(steps, config)
    write_json(file, pipeline)
    for name in states - {step.get("state_file") for step in steps}:
        (folder / name).unlink(missing_ok=True)
    if consumer == "eval":
        take_any_size(folder, _one_size(config))
    for other in CONSUMERS:
        (folder / notice(other)).unlink(missing_ok=True)
    (folder / notice(consumer)).write_text(_NOTICE[consumer] + _MOVED)


def take_any_size(folder: Path, size: tuple[int, int] | None) -> None:
    """Let a policy that does not resize images resize them to those it was trained on, which are left alone.

    LeRobot's LIBERO renders at another size than many are trained at, and X-VLA then runs out of positions.

    Args:
        folder: Its ``config.json`` is written to.
        size: (h, w) of the images it was trained on; None: unknown, nothing is changed.
    """
    if size is not None and not read_json(folder / CONFIG).get("resize_imgs_with_padding"):
        change_config(folder, resize_imgs_with_padding=[int(side) for side in size])


def _for_train(steps: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Insert what is missing of LeRobot's own preprocessor, in its order."""
    # Takes seconds to import, and whoever only looks at a folder needs none of it.
    from lerobot.policies.xvla.processor_xvla import (
        XVLAAddDomainIdProcessorStep,
        XVLAImageNetNormalizeProcessorStep,
        XVLAImageToFloatProcessorStep,
    )

    features = {**(config.get("input_features") or {}), **(config.get("output_features") or {})}
    normalizer = {"eps": 1e-8, "features": features, "norm_map": config.get("normalization_mapping") or {}}
    here = 1 + next((i for i, step in enumerate(steps) if _name(step) == "tokenizer_processor"), -1)
    for name, step in (
        (_TO_FLOAT, XVLAImageToFloatProcessorStep()),
        (_IMAGENET, XVLAImageNetNormalizeProcessorStep()),
        (_DOMAIN, XVLAAddDomainIdProcessorStep()),
    ):
        present = [step for step in steps if _name(step) == name]
        for entry in present:
            steps.remove(entry)
        steps.insert(here, present[0] if present else _entry(name, step))
        here += 1
    if not any(_name(step) == _NORMALIZER for step in steps):
        steps.append({"registry_name": _NORMALIZER, "config": normalizer})


def _for_eval(steps: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Take out what LeRobot's LIBERO processors do: the images, and adding domain id 0."""
    from lerobot.configs import NormalizationMode

    done = {_TO_FLOAT, _IMAGENET}
    identity = NormalizationMode.IDENTITY.value
    mapping = config.get("normalization_mapping") or {}
    if all(mode == identity for kind, mode in mapping.items() if kind != "ACTION"):
        done.add(_NORMALIZER)
    steps[:] = [
        step
        for step in steps
        if _name(step) not in done and not (_name(step) == _DOMAIN and not step["config"].get("domain_id"))
    ]


def _one_size(config: dict[str, Any]) -> tuple[int, int] | None:
    """Return (h, w) of the images that a config announces, if there is one for all real cameras."""
    sizes = {
        tuple(feature["shape"][1:])
        for name, feature in (config.get("input_features") or {}).items()
        if feature["type"] == "VISUAL" and ".empty_camera_" not in name
    }
    return sizes.pop() if len(sizes) == 1 else None


def _entry(name: str, step: ProcessorStep) -> dict[str, Any]:
    return {"registry_name": name, "config": step.get_config()}


def _name(step: dict[str, Any]) -> str | None:
    return step.get("registry_name")
