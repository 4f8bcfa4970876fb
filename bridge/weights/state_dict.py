"""A torch state dict as the Flax parameter tree, and back: strict both ways, bit for bit.

Tensors are read one at a time and written from where they lie, so neither direction needs more memory than
the parameter tree and its largest tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bridge.weights import keymap
from bridge.weights.formats import WeightsError
from pirl_jax import trees
from pirl_jax.console.progress import Progress
from pirl_jax.likelihood.modes import NOISE_HEAD
from pirl_jax.trees import leaves, nest
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.init import init_params

Tree = dict[str, Any]

_DTYPES = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))
_MUST_BE = "weights must be float32, bfloat16 or float16."
_NAMED_IN_ERROR = 5
_REMEDY = "The weights and config.json must come from the same policy."


class SafetensorsFile(Mapping[str, np.ndarray]):
    """A safetensors file as a mapping that reads a tensor, into memory of its own, when it is asked for."""

    def __init__(self, path: Path):
        """Open the file and check that its header covers it.

        Raises:
            WeightsError: The file is missing, truncated or not safetensors.
        """
        if not path.is_file():
            raise WeightsError(f"{path} is missing; give a folder that LeRobot saved a policy to.")
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} is truncated or no safetensors file ({error}). Copy or download it again."
            ) from error
        self._keys = tuple(self._file.keys())

    def __getitem__(self, key: str) -> np.ndarray:
        return np.array(_readable(key, self._file.get_tensor(key)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def to_numpy(tensor: torch.Tensor | np.ndarray) -> np.ndarray:
    """View a tensor as a NumPy array, bfloat16 included; copies only off another device or out of strides."""
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def to_torch(array: jax.Array | np.ndarray) -> torch.Tensor:
    """View an array as a CPU tensor, bfloat16 included; copies only from another device or out of strides.

    The tensor is to be read only. JAX does not reuse the buffer of an array that a tensor still views, so
    donating it remains safe.
    """
    if isinstance(array, jax.Array):
        if all(device.platform == "cpu" for device in array.devices()):
            return torch.from_dlpack(array)
        array = np.asarray(array)
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:  # which NumPy cannot hand over
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)  # not from_numpy, which warns about arrays that JAX hands out


def params_from_state(state: Mapping[str, Any], config: XVLAConfig) -> Tree:
    """Build the parameter tree from a torch state dict, native or vendored layout.

    Args:
        state: Torch key → tensor (``XVLAPolicy.state_dict()`` or :class:`SafetensorsFile`). Memory is
            shared with tensors that are in memory already.
        config: The architecture; decides which tensors there must be.

    Returns:
        Nested dicts of NumPy arrays in the tensors' own dtypes.

    Raises:
        WeightsError: A tensor is missing, unknown, misshapen, not floating point or not finite. It is named.
    """
    expected = expected_tensors(config)
    sources = _sources(state, expected)
    _check_names(set(sources), set(expected), sources)
    params: list[tuple[trees.Path, np.ndarray]] = []
    with Progress("reading weights", len(expected), "tensors") as progress:
        for key, (path, shape) in expected.items():
            source = sources[key]
            array = _readable(source, state[source])
            if source in keymap.TRANSPOSED:
                array = np.ascontiguousarray(array.T)
            _check_tensor(source, array, shape)
            params.append((path, array))
            progress.advance()
    return nest(params)


def to_torch_state(
    params: Tree, subset: Collection[str] | None = None, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Return the tree (or a part of it) under LeRobot's keys, without copying where the memory allows it.

    Args:
        params: Parameter tree, JAX or NumPy leaves; subtrees may be absent.
        subset: Top-level names to take, e.g. ``("transformer",)``. None takes all.
        dtype: Round to this dtype, e.g. ``torch.bfloat16`` (to nearest even, as JAX does). None keeps them.

    Returns:
        ``{"model.transformer.…": tensor}``; a tied embedding is there once, under the tree's name.

    Raises:
        KeyError: The tree holds a leaf that X-VLA has not.
    """
    state = {}
    for path, leaf in leaves(params):
        if subset is None or path[0] in subset:
            tensor = to_torch(leaf)
            state[keymap.to_torch_key(path)] = tensor if dtype is None else tensor.to(dtype)
    return state


def to_push(params: Tree) -> dict[str, torch.Tensor]:
    """Return trainable parameters as actors take them: the noise head's, if any, under their own paths.

    Args:
        params: Trainable parameter tree.

    Raises:
        KeyError: The tree holds a leaf that neither X-VLA nor the noise head has.
    """
    policy = {name: tree for name, tree in params.items() if name != NOISE_HEAD}
    head = {".".join(path): to_torch(leaf) for path, leaf in leaves({NOISE_HEAD: params.get(NOISE_HEAD, {})})}
    return to_torch_state(policy) | head


def from_push(tensors: Mapping[str, torch.Tensor], shapes: Tree) -> Tree:
    """Read what :func:`to_push` has made, complete, into a tree like ``shapes``; NumPy leaves.

    Raises:
        WeightsError: A tensor is missing, unknown, misshapen, not floating point or not finite. It is named.
    """
    expected = {
        ".".join(path) if path[0] == NOISE_HEAD else keymap.to_torch_key(path): (path, leaf.shape)
        for path, leaf in leaves(shapes)
    }
    _check_names(set(tensors), set(expected), {name: name for name in (*tensors, *expected)})
    params = []
    for name, (path, shape) in expected.items():
        array = _readable(name, tensors[name])
        _check_tensor(name, array, shape)
        params.append((path, array))
    return nest(params)


def write_safetensors(file: Path, params: Tree) -> None:
    """Write ``model.safetensors`` byte for byte as LeRobot's ``save_pretrained`` would.

    Args:
        file: Where to.
        params: Complete parameter tree; leaves keep their dtypes.
    """
    state = to_torch_state(params)
    metadata = {}
    for alias, kept in keymap.TIED.items():
        if alias not in state:
            # Of tensors that share memory, safetensors keeps the alphabetically first, here the alias.
            state[alias] = state.pop(kept)
            metadata[kept] = alias
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, file, metadata or None)


def check_params(params: Tree, config: XVLAConfig) -> Tree:
    """Return ``params`` after checking it against the tree that the config describes.

    Raises:
        WeightsError: A leaf is missing, unknown, misshapen, not floating point or not finite. It is named.
    """
    expected = dict(expected_tensors(config).values())
    got = dict(leaves(params))
    _check_names(set(got), set(expected), {path: ".".join(path) for path in (*got, *expected)})
    with Progress("checking weights", len(expected), "tensors") as progress:
        for path, shape in expected.items():
            _check_tensor(".".join(path), got[path], shape)
            progress.advance()
    return params


@lru_cache(maxsize=8)
def expected_tensors(config: XVLAConfig) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return path and shape of every tensor of the architecture, by its native torch key."""
    tree = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return {keymap.to_torch_key(path): (path, leaf.shape) for path, leaf in leaves(tree)}


def _sources(state: Mapping[str, Any], expected: Collection[str]) -> dict[str, str]:
    """Return the key in ``state`` of every native key, tied embeddings restored as LeRobot's loader does."""
    vendored = keymap.is_vendored(state)
    sources: dict[str, str] = {}
    for key in state:
        native = keymap.to_native_key(key) if vendored else key
        if native in sources:
            raise WeightsError(
                f"{sources[native]} and {key} are the same tensor in two layouts; remove one of them."
            )
        if native is not None:
            sources[native] = key
    for alias, kept in keymap.TIED.items():
        both = alias in sources and kept in sources
        if both and alias not in expected and not _same_bits(state[sources[alias]], state[sources[kept]]):
            raise WeightsError(
                f"{sources[alias]} and {sources[kept]} differ, but the config ties them. Set "
                "florence_config.text_config.tie_word_embeddings=false if they are meant to."
            )
        if alias in sources or kept in sources:
            sources.setdefault(kept, sources.get(alias, ""))
            sources.setdefault(alias, sources[kept])
        if alias not in expected:
            sources.pop(alias, None)
    return sources


def _same_bits(first: Any, second: Any) -> bool:
    first, second = to_numpy(first), to_numpy(second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second))


def _check_names(got: set[Any], expected: set[Any], shown: Mapping[Any, str]) -> None:
    problems = []
    for names, problem in ((expected - got, "missing"), (got - expected, "not part of the model")):
        if names:
            listed = sorted(str(shown.get(name, name)) for name in names)
            more = f" and {len(listed) - _NAMED_IN_ERROR} more" if len(listed) > _NAMED_IN_ERROR else ""
            verb = "is" if len(listed) == 1 else "are"
            problems.append(f"{', '.join(listed[:_NAMED_IN_ERROR])}{more} {verb} {problem}")
    if problems:
        raise WeightsError(f"{'; '.join(problems)}. {_REMEDY}")


def _readable(name: str, tensor: Any) -> np.ndarray:
    try:
        return to_numpy(tensor)
    except TypeError as error:  # a dtype that NumPy has not, as quantised weights have
        raise WeightsError(f"{name} is {tensor.dtype}; {_MUST_BE}") from error


def _check_tensor(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != tuple(shape):
        raise WeightsError(
            f"{name} has shape {list(array.shape)}; config.json asks for {list(shape)}. {_REMEDY}"
        )
    if array.dtype not in _DTYPES:
        raise WeightsError(f"{name} is {array.dtype}; {_MUST_BE}")
    finite = np.isfinite(np.asarray(array))
    if not finite.all():
        bad = finite.size - int(np.count_nonzero(finite))
        raise WeightsError(
            f"{name} holds {bad} NaN or infinite values; the checkpoint is damaged or diverged."
        )
