"""Settings that another choice leaves without effect: refused where they are not at their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Idle:
    """Settings that do nothing, and when."""

    settings: Mapping[str, Sequence[str]]
    """Section → fields; none: all of it."""
    when: Callable[[Any], bool]
    """Of the recipe."""
    because: str

    def names(self, recipe: Any) -> list[str]:
        """Return those that are not at their defaults, as ``algorithm.section.field=value``."""
        return [
            f"algorithm.{section}.{field.name}={value}"
            for section, wanted in self.settings.items()
            for field in fields(getattr(recipe, section))
            if field.name in wanted or not wanted
            if _plain(value := getattr(getattr(recipe, section), field.name)) != _plain(_default(field))
        ]


IDLE = (
    Idle(
        {"critic": (), "advantage": ("gamma", "gae_lambda", "bootstrap_truncation", "normalize")},
        lambda recipe: recipe.advantage.estimator == "group",
        "advantage.estimator=group has no critic",
    ),
    Idle(
        {"advantage": ("min_std",)},
        lambda recipe: recipe.advantage.estimator == "gae" and not recipe.advantage.normalize,
        "advantage.normalize=false divides by nothing",
    ),
    Idle(
        {"noise": ("std_range", "head_hidden_dims")},
        lambda recipe: recipe.noise.mode != "flow_noise",
        "a standard deviation is learned with noise.mode=flow_noise alone",
    ),
    Idle(
        {"noise": ("gripper_temperature",)},
        lambda recipe: recipe.noise.gripper != "bernoulli",
        "grippers are drawn with noise.gripper=bernoulli alone",
    ),
    Idle(
        {"objective": ("max_behaviour_weight",)},
        lambda recipe: not recipe.objective.decoupled,
        "there are such weights with objective.decoupled=true alone",
    ),
    Idle(
        {"rollout": ("task_window",)},
        lambda recipe: recipe.rollout.task_success_range is None,
        "success is looked at with rollout.task_success_range alone",
    ),
    Idle(
        {"serve": ()},
        lambda recipe: recipe.inference == "local",
        "with inference=local there is no policy server",
    ),
    Idle(
        {"serve": ("replicas", "host", "port")},
        lambda recipe: recipe.inference == "served" and recipe.serve.mode == "learner",
        "serve.mode=learner has one policy server, on the learner's port",
    ),
    Idle(
        {"serve": ("features_gb",)},
        lambda recipe: recipe.inference == "served" and recipe.serve.mode == "process",
        "with serve.mode=process the learner encodes observations by itself",
    ),
    Idle(
        {"demonstrations": ("decay_updates", "batch_size", "max_samples")},
        lambda recipe: not recipe.demonstrations.coef,
        "with demonstrations.coef=0 there are no demonstrations",
    ),
    Idle(
        {"videos": ("episodes", "keep")},
        lambda recipe: not recipe.videos.every_episodes,
        "with videos.every_episodes=0 nothing is filmed",
    ),
)


def refuse_idle(recipe: Any) -> None:
    """Check a recipe for settings that do nothing.

    Raises:
        ValueError: naming them, the choice that leaves them without effect and the remedy.
    """
    for idle in IDLE:
        if idle.when(recipe) and (names := idle.names(recipe)):
            raise ValueError(
                f"{', '.join(names)} would do nothing: {idle.because}. Leave them at their defaults."
            )


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    """Tuples come as lists from JSON."""
    return list(value) if isinstance(value, (tuple, list)) else value
