"""A card as it lies in a folder: ``README.md`` and the picture that it shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.card import evaluation
from bridge.card.card import CURVE, card
from bridge.card.policy import Policy
from pirl_jax.files import write_file, write_text
from pirl_jax.training.metrics import updates

logger = logging.getLogger(__name__)

README = "README.md"


def write_card(
    policy: Policy,
    folder: Path,
    *,
    repo_id: str | None = None,
    licence: str | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write the card of a policy.

    Args:
        policy: What it is about.
        folder: Made if missing.
        repo_id: Where it will be.
        licence: None: the policy's, else LeRobot's default.
        report: Of ``pirl-eval``; None: the one that lies beside the run, if it is of this policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if report is None and (found := evaluation.beside(policy)) is not None:
        logger.info("the card shows the evaluation in %s", found[0].parent)
        report = found[1]
    curve = bool(policy.algorithm and updates(policy.rows))
    if curve:
        from bridge.figures.learning_curve import learning_curve  # matplotlib takes a second to load

        write_file(folder / CURVE, lambda path: learning_curve(policy.rows, path, policy.name))
    text = card(policy, report, repo_id=repo_id, licence=licence, curve=curve)
    write_text(folder / README, text)
