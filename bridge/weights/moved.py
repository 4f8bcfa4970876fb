"""What has to be written anew in an export, or in a run's checkpoints, once they lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from bridge.plugin.tokenizer import TOKENIZER, is_path
from bridge.weights.beside import CONFIG, PREPROCESSOR, repoint_tokenizer, tokenizer_name
from bridge.weights.formats import WeightsError
from pirl_jax.run_folder.layout import CHECKPOINTS, PRETRAINED_MODEL, steps
from pirl_jax.run_folder.manifest import MANIFEST, rewriting


def mend(place: Path | str) -> list[Path]:
    """Make exports name the tokenizers that lie in them, where they lie now; manifests are kept true.

    Args:
        place: An export, a checkpoint around one, or a run's ``output_dir`` with its checkpoints.

    Returns:
        The exports' folders that name a tokenizer of their own now.

    Raises:
        WeightsError: There is no export; or one names a tokenizer that is neither there nor in it.
        pirl_jax.run_folder.manifest.DamageError: A file to be written is not as its manifest says.
    """
    folders = list(_exports(Path(place)))
    if not folders:
        raise WeightsError(f"{place} is no checkpoint, nor a run with checkpoints: there is no {CONFIG}.")
    return [folder for folder in folders if _mend(folder)]


def _mend(folder: Path) -> bool:
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_dir():
        name = tokenizer_name(folder)
        if name is not None and is_path(name) and not Path(name).is_dir():
            raise WeightsError(
                f"{folder} names the tokenizer {name}, which is not there, and carries none. Put the "
                f"tokenizer's files into {tokenizer} and run this again."
            )
        return False
    files = [f"{folder.name}/{name}" for name in (CONFIG, PREPROCESSOR)]
    sealed = (folder.parent / MANIFEST).is_file()
    with rewriting(folder.parent, files) if sealed else nullcontext():
        repoint_tokenizer(folder, tokenizer)
    return True


def _exports(place: Path) -> Iterator[Path]:
    for folder in (place, place / PRETRAINED_MODEL):
        if (folder / CONFIG).is_file():
            yield folder.resolve()
            return
    for _, checkpoint in sorted(steps(place / CHECKPOINTS)):
        if (checkpoint / PRETRAINED_MODEL / CONFIG).is_file():
            yield (checkpoint / PRETRAINED_MODEL).resolve()
