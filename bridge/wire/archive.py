"""What `torch.save` has written, opened without trusting it: bounded in size, plain tensors alone."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from bridge.wire.spec import EpisodeSpec

_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Long", "Int", "Short", "Byte", "Char", "Bool")}
)
"""All that plain tensors of NumPy's types need. torch's weights_only loader also knows nested, meta and
subclassed tensors, and `bytearray(n)`, which allocates as much as the sender likes."""


class TransitionError(ValueError):
    """A message that cannot become an episode. It is dropped alone; the stream it came on goes on.

    Attributes:
        reason: A short code to count by: `undecodable`, `too_large`, `empty`, `too_long`, `missing`, `type`,
            `shape`, `nan`, `record`, `executed`, `reward`, `version`, `number`, `task`, `boundary`.
    """

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


def load_transitions(message: bytes, spec: EpisodeSpec) -> list[Mapping[str, Any]]:
    """Return the transitions in the message of one episode, as dicts of plain tensors.

    Raises:
        TransitionError: The message is too large, or is no archive of a list of transitions.
    """
    if len(message) > spec.max_message_bytes:
        raise TransitionError(
            "too_large",
            f"Message has {len(message)} bytes; an episode of {spec.max_chunks} chunks needs at most "
            f"{spec.max_message_bytes}.",
        )
    transitions = load_plain(message, spec.max_pickle_bytes)
    if not isinstance(transitions, list):
        raise TransitionError("type", f"Expected a list of transitions; got {type(transitions).__name__}.")
    if not transitions:
        raise TransitionError("empty", "The message holds no transition.")
    if len(transitions) > spec.max_chunks:
        raise TransitionError(
            "too_long",
            f"Episode of {len(transitions)} chunks; at most {spec.max_chunks} fit. Raise max_chunks or end "
            "the episode earlier.",
        )
    for i, transition in enumerate(transitions):
        if not isinstance(transition, dict):
            raise TransitionError("type", f"transition {i} must be a dict; got {type(transition).__name__}.")
    return transitions


def load_plain(message: bytes, max_pickle_bytes: int, also: frozenset[str] = frozenset()) -> Any:
    """Return what was saved: plain containers, numbers, text, and tensors; on the CPU.

    Args:
        message: An archive of `torch.save`.
        max_pickle_bytes: Of the pickle in it that says how its tensors belong together, at most.
        also: Globals that its pickle may name beside those of tensors of NumPy's types, ``module name``.

    Raises:
        TransitionError: It is no such archive, or holds anything else.
    """
    _check_archive(message, max_pickle_bytes, _GLOBALS | also)
    try:
        return torch.load(io.BytesIO(message), map_location="cpu", weights_only=True)
    # The bytes are the peer's: torch's reader and unpickler answer bad ones with a dozen exception types.
    except Exception as error:
        raise TransitionError(
            "undecodable", f"torch.load refused the message ({type(error).__name__})."
        ) from error


def _check_archive(message: bytes, max_pickle_bytes: int, known: frozenset[str]) -> None:
    """Refuse compressed entries (a small message unpacking to gigabytes) and globals that are not known.

    To look through a pickle takes far more time and memory than its bytes suggest, so a long one is not.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(message)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise TransitionError(
                    "undecodable", "The message's archive is compressed; torch.save never does that."
                )
            if sum(entry.file_size for entry in entries) > len(message):
                raise TransitionError(
                    "undecodable", "The message's archive claims more bytes than the message has."
                )
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1:
                raise TransitionError(
                    "undecodable", f"Expected one data.pkl in the archive; found {len(pickles)}."
                )
            if pickles[0].file_size > max_pickle_bytes:
                raise TransitionError(
                    "too_large",
                    f"The message's data.pkl has {pickles[0].file_size} bytes; at most "
                    f"{max_pickle_bytes} are needed.",
                )
            program = archive.read(pickles[0])
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise TransitionError(
                    "undecodable", f"Opcode {opcode.name} has no place among plain tensors."
                )
            if opcode.name == "PROTO" and argument != 2:
                raise TransitionError("undecodable", f"Pickle protocol {argument}; torch.save writes 2.")
            if opcode.name == "GLOBAL" and argument not in known:
                raise TransitionError("undecodable", f"{argument!r} has no place among plain tensors.")
    except TransitionError:
        raise
    # As above: zipfile and pickletools raise whatever the peer's bytes lead them to.
    except Exception as error:
        raise TransitionError(
            "undecodable", f"Not a torch.save archive ({type(error).__name__}: {error})."
        ) from error
