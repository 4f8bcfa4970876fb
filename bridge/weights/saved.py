"""The policy of a run's checkpoint, where only what had changed was saved: that, and the run's base.

The tensors that a run does not train are the same in every complete export of it and in what it began with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bridge.weights.folder import load_params
from bridge.weights.formats import WeightsError
from bridge.weights.state_dict import Tree
from pirl_jax.likelihood.modes import NOISE_HEAD
from pirl_jax.run_folder.layout import BEST, LAST, MODEL, ORBAX, PRETRAINED_MODEL, TRAINING_STATE, read_about
from pirl_jax.trees import leaves, merge, nest, store

FROZEN = "frozen_tensors"
"""What a checkpoint says of the tensors that it leaves out: a hash of their bits."""
BASE = "base"
"""Where its run has them from."""


def about(frozen: Tree, base: Path | str | None) -> dict[str, str | None]:
    """Return what a checkpoint has to say of the parameters that its run does not train.

    Args:
        frozen: the parameters.
        base: the folder or hub id that the run began with; None: it began with random ones.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in sorted(leaves(frozen)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{'.'.join(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).data)
    place = str(Path(base).absolute()) if base is not None and Path(base).exists() else base
    return {FROZEN: digest.hexdigest(), BASE: place and str(place)}


def begun_with(checkpoint: Path) -> str | None:
    """Return where the run of a checkpoint has its frozen tensors from."""
    return read_about(checkpoint).get(BASE)


def check_frozen(checkpoint: Path, base: Path | str, frozen: Mapping[str, str | None]) -> None:
    """Compare what a checkpoint says of its frozen tensors with what another folder has.

    Args:
        checkpoint: of the run.
        base: where the tensors were read.
        frozen: what it says of them (``about``).

    Raises:
        WeightsError: They are not the run's.
    """
    if read_about(checkpoint).get(FROZEN, frozen[FROZEN]) != frozen[FROZEN]:
        raise WeightsError(
            f"{base} is not what the run of {checkpoint} began with: the tensors that were not trained "
            "differ. Give the run's own base checkpoint."
        )


def base_of(checkpoint: Path) -> Path | str:
    """Return a checkpoint of the same run that has all weights: itself, its last, its best, or its base.

    Raises:
        WeightsError: None of them is there; says where they were looked for.
    """
    looked = []
    for candidate in _candidates(checkpoint):
        if (Path(candidate) / MODEL).is_file():
            return candidate
        looked.append(str(candidate))
    named = looked[-1]
    if not Path(named).exists() and named.count("/") == 1 and not named.startswith((".", "/", "~")):
        return named  # of the hub
    raise WeightsError(
        f"{checkpoint} holds what its run has changed, and the weights it began with are not there: none of "
        f"{', '.join(looked)} has a {MODEL}. Put one back, or name the base (pirl-convert --base)."
    )


def saved_params(checkpoint: Path, base: Path | str | None = None) -> Tree:
    """Return all parameters of a checkpoint: the base's, with those that were trained in their place.

    Args:
        checkpoint: ``…/checkpoints/000010``.
        base: what the run began with; None: found by ``base_of``.

    Raises:
        WeightsError: The base is missing, or not the run's.
        ValueError: ``checkpoint`` is none.
    """
    state = store.load(checkpoint / TRAINING_STATE / ORBAX, only=("params",))
    trained = {name: tree for name, tree in state["params"].items() if name != NOISE_HEAD}
    base = base_of(checkpoint) if base is None else base
    params = load_params(base)[1]
    paths = {path for path, _ in leaves(trained)}
    frozen = nest((path, leaf) for path, leaf in leaves(params) if path not in paths)
    check_frozen(checkpoint, base, about(frozen, base))
    return merge(frozen, trained)


def _candidates(checkpoint: Path) -> Iterator[Path | str]:
    yield checkpoint / PRETRAINED_MODEL
    for name in (LAST, BEST):
        yield checkpoint.resolve().parent / name / PRETRAINED_MODEL
    if named := begun_with(checkpoint):
        yield named
