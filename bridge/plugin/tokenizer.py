"""Where a policy's tokenizer is, once its folder lies elsewhere than where it was written.

LeRobot loads a tokenizer by an absolute path or a hub id, so a folder that carries its tokenizer names it by
the place where it was written. Ours look beside the weights when there is nothing at that place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOKENIZER = "tokenizer"
"""Folder of the tokenizer in an export."""


def is_path(name: str) -> bool:
    """Tell whether a tokenizer's name can only be a folder's: a hub id has one slash at most."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def settle_tokenizer(policy: Any, env: Any = None) -> None:
    """Let a policy's config, and the environment's after it, name a tokenizer that is there.

    Args:
        policy: X-VLA's config, ``pretrained_path`` set where it was loaded from a folder. Changed in place.
        env: The environment's config, if it names the tokenizer as well.

    Raises:
        ValueError: The policy names a folder that is not there, and carries none.
    """
    named = policy.tokenizer_name
    if not Path(named).is_dir():
        # Not through `last`, which moves.
        carried = Path(policy.pretrained_path).resolve() / TOKENIZER if policy.pretrained_path else None
        if carried is not None and carried.is_dir():
            policy.tokenizer_name = str(carried)
        elif is_path(named):
            raise ValueError(
                f"the policy's tokenizer {named} is not there"
                + ("." if carried is None else f", and neither is {carried}.")
                + " Put it back, or set policy.tokenizer_name to where it is."
            )
    theirs = getattr(env, "tokenizer_name", None)
    if theirs is not None and (theirs == named or (is_path(theirs) and not Path(theirs).is_dir())):
        env.tokenizer_name = policy.tokenizer_name
