"""What ``torch.save`` writes, read again without torch: a zip file by its directory, its pickle in Python."""

from __future__ import annotations

import io
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import ODD_NUMBERS, UnfitError, broken

_NUMPY = {
    **{"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bfloat16", "Long": "<i8"},
    **{"Int": "<i4", "Short": "<i2", "Byte": "u1", "Char": "i1", "Bool": "?"},
}


class Rounded(np.ndarray):
    """bfloat16 numbers, as the float32 ones that they are."""


@dataclass
class _Storage:
    kind: str
    data: bytes


class _Reader(pickle._Unpickler):  # the one in Python: the one in C makes room for whatever a byte asks for
    dispatch = {  # noqa: RUF012
        code: do
        for code, do in pickle._Unpickler.dispatch.items()
        if bytes([code])
        not in (pickle.BYTEARRAY8, pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4)
    }

    def __init__(self, program: bytes, records: dict[str, bytes], wide: bool) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self._records, self._wide, self._known = records, wide, {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        kind = name.removesuffix("Storage")
        rounded = kind in ("Half", "BFloat16")
        if module == "torch" and name.endswith("Storage") and kind in _NUMPY and (self._wide or not rounded):
            return kind
        raise UnfitError(f"global {module} {name}")

    def persistent_load(self, pid: Any) -> _Storage:
        what, kind, key, _, count = pid
        if what != "storage" or kind not in _NUMPY:
            raise UnfitError(f"no storage: {pid}")
        if key not in self._known:
            record = self._records[f"data/{key}".lower()]
            size = count * (2 if kind == "BFloat16" else np.dtype(_NUMPY[kind]).itemsize)
            if not 0 <= size <= len(record):
                raise UnfitError("a storage that is shorter than it says")
            self._known[key] = _Storage(kind, record[:size])
        return self._known[key]


def _tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, grad: Any, hooks: Any, metadata: Any = None
) -> np.ndarray:
    if not isinstance(storage, _Storage) or metadata:
        raise UnfitError("a tensor that is not plain")
    if storage.kind == "BFloat16":
        halves = np.frombuffer(storage.data, "<u2").astype(np.uint32) << 16
        flat = halves.view(np.float32).view(Rounded)
    else:
        flat = np.frombuffer(storage.data, _NUMPY[storage.kind])
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise UnfitError("a tensor of negative sizes")
    if 0 not in size and offset + sum((n - 1) * step for n, step in zip(size, stride)) >= len(flat):
        raise UnfitError("a tensor beyond its storage")
    strides = tuple(step * flat.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(flat[offset:], size, strides, subok=True)


def records(data: bytes) -> dict[str, bytes]:
    """Return an archive's files by their names, in small letters, without the folder that they are in.

    Checksums and capitals are not looked at: torch does not either.
    """
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise UnfitError("compressed")
            name = int.from_bytes(data[entry.header_offset + 26 : entry.header_offset + 28], "little")
            extra = int.from_bytes(data[entry.header_offset + 28 : entry.header_offset + 30], "little")
            start = entry.header_offset + 30 + name + extra
            found[entry.filename.partition("/")[2].lower()] = data[start : start + entry.file_size]
    return found


def reread(data: bytes, max_pickle_bytes: int, wide: bool = False) -> Any:
    """Return what was saved, tensors as NumPy arrays.

    Args:
        data: The archive.
        max_pickle_bytes: Of its pickle.
        wide: Whether numbers of 16 bits may be among it.

    Raises:
        UnfitError: It is none, or holds something else.
    """
    try:
        files = records(data)
        if len(files["data.pkl"]) > max_pickle_bytes:
            raise UnfitError("a long pickle")
        return _Reader(files["data.pkl"], files, wide).load()
    except UnfitError:
        raise
    except Exception as error:
        raise UnfitError(repr(error)) from error


def written(content: Any) -> bytes:
    """Return the archive."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with some others, or another archive with a part of it changed, cut or compressed."""
    if rng.random() < 0.5:
        return broken(rng, data)
    way, buffer = rng.randrange(3), io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if way == 0 and rng.random() < 0.3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        names = old.namelist()
        struck = next(name for name in names if name.endswith("data.pkl")) if way < 2 else rng.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, broken(rng, content) if name == struck and content else content)
    return buffer.getvalue()


def odd_tensor(rng: random.Random) -> torch.Tensor:
    """Return a tensor as torch may read it, hardly one that belongs there."""
    way = rng.randrange(12)
    if way == 0:
        return torch.zeros(1).expand(1 << rng.randrange(10, 41))
    if way == 1:
        return torch.eye(3).to_sparse()
    if way == 2:
        return torch.empty(3, device="meta")
    if way == 3:
        return torch.nn.Parameter(torch.ones(3))
    shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
    kinds = (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
    )
    kind = rng.choice((*kinds, torch.bool, torch.int8, torch.complex64))
    return torch.full(shape, rng.choice(ODD_NUMBERS), dtype=torch.float64).to(kind)


def odd_form(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """Return the same numbers, or almost: of another type, shape or order in memory, or one is odd."""
    way = rng.randrange(7)
    if way == 0:
        return tensor.to(rng.choice((torch.float32, torch.float64, torch.int64, torch.uint8, torch.bfloat16)))
    if way == 1:
        return tensor.reshape(-1) if rng.random() < 0.5 else tensor[None]
    if way == 2:  # the same to whoever reads it, though not in memory
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.ndim else tensor
    if way == 3:  # a part of a larger one
        return torch.cat([tensor, tensor])[: len(tensor)] if tensor.ndim else tensor
    changed = tensor.clone()
    if changed.numel():
        place = rng.randrange(changed.numel())
        number = rng.choice(ODD_NUMBERS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed.view(-1)[place] = number if changed.is_floating_point() else int(min(number, 3) == number)
    return changed
