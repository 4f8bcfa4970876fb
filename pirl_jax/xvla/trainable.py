"""Which tensors of X-VLA are trained, and in which group: one definition for RL and for supervised training.

LeRobot's flags (``freeze_vision_encoder``, ``train_soft_prompts``, …) freeze; the recipe selects. What is
selected and not frozen is trained.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pirl_jax.xvla.model import BUFFERS

Selection = Literal["head", "soft_prompts"]
"""What RL may train: the whole head, soft prompts and domain layers included, or the soft prompts alone."""


class FreezeFlags(Protocol):
    """LeRobot's flags, as ``XVLAConfig`` and ``SupervisedOptimizer`` have them."""

    @property
    def freeze_vision_encoder(self) -> bool:
        """Keep the vision tower."""
        ...

    @property
    def freeze_language_encoder(self) -> bool:
        """Keep the BART encoder and the token table."""
        ...

    @property
    def train_policy_transformer(self) -> bool:
        """False keeps the head but its soft prompts."""
        ...

    @property
    def train_soft_prompts(self) -> bool:
        """False keeps the soft prompts."""
        ...


def is_frozen(flags: FreezeFlags, name: str) -> bool:
    """Tell whether LeRobot's ``_apply_freezing`` freezes the parameter of this dotted name (``vlm.…``)."""
    if name.startswith("vlm."):
        vision = flags.freeze_vision_encoder and name.startswith("vlm.vision_tower.")
        language = flags.freeze_language_encoder and name.startswith(
            ("vlm.language_model.encoder.", "vlm.language_model.shared.")
        )
        return vision or language
    return not (flags.train_soft_prompts if "soft_prompt" in name else flags.train_policy_transformer)


def part(name: str) -> str:
    """``vlm``, ``soft_prompts`` or ``head``: where a parameter stands in the network."""
    if name.startswith("vlm."):
        return "vlm"
    return "soft_prompts" if "soft_prompt" in name else "head"


def trained_part(flags: FreezeFlags, name: str) -> str | None:
    """Return a parameter's part if supervised training moves it: neither frozen nor torch's buffer."""
    return None if is_frozen(flags, name) or name.split(".")[-1] in BUFFERS else part(name)


def rl_part(flags: FreezeFlags, selection: Selection, name: str) -> str | None:
    """Return a parameter's part if online RL trains it: what is selected, less what is frozen."""
    where = trained_part(flags, name)
    selected = ("soft_prompts",) if selection == "soft_prompts" else ("head", "soft_prompts")
    return where if where in selected else None
