"""Transition messages, as the stock actor sends them at an episode's end."""

from __future__ import annotations

import math
import random
import struct
import sys
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "wire"))

from episodes import SPEC, transitions

from bridge.wire.archive import TransitionError
from bridge.wire.decode import decode_episode
from bridge.wire.record import pack, unpack
from bridge.wire.spec import EpisodeSpec

from . import ODD_NUMBERS, Made, UnfitError, odd_value
from .archive import odd_form, odd_tensor, reread, spoilt, written

FIRST_EVALUATION = 1 << 30
REASONS = {
    *(
        "undecodable",
        "too_large",
        "empty",
        "too_long",
        "missing",
        "type",
        "shape",
        "nan",
        "record",
        "executed",
    ),
    *("reward", "version", "number", "task", "boundary"),
}


class Episodes:
    """Of a spec, by default one of small images, and of so many chunks."""

    def __init__(self, spec: EpisodeSpec = SPEC, lengths: Sequence[int] = (1, 2, 3, 4) * 8) -> None:
        self._spec = spec
        self._pool = [
            transitions(chunks, seed=seed, truncated=seed % 3 == 0, spec=spec, **of)
            for seed, chunks in enumerate(lengths)
            for of in (
                {"run": 5, "number": 9 + seed},
                {"run": 5, "number": FIRST_EVALUATION + 3, "denoise_step": 0},
            )
        ]

    def make(self, rng: random.Random) -> Made:
        content: Any = [_copy(transition) for transition in rng.choice(self._pool)]
        done = []
        for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
            change = rng.choice(CHANGES)
            done.append(change.__name__)
            change(rng, content)
        if rng.random() < 0.02:
            content = rng.choice((content[:1] * 7, [], {}, None, content and content[0], odd_value(rng)))
        data = written(content)
        if rng.random() < 0.3:
            return Made(spoilt(rng, data), True, (*done, "spoilt"))
        return Made(data, False, tuple(done))

    def read(self, data: bytes) -> Any:
        try:
            episode = decode_episode(data, self._spec)
        except TransitionError as error:
            if error.reason not in REASONS or not str(error):
                raise AssertionError(f"refused for no reason: {error.reason!r}") from error
            raise UnfitError(error.reason) from error
        return {**vars(episode), "observations": dict(vars(episode.observations))}

    def reread(self, data: bytes) -> Any:
        if len(data) > self._spec.max_message_bytes:
            raise UnfitError("long")
        try:
            return _episode(reread(data, self._spec.max_pickle_bytes), self._spec)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise UnfitError(repr(error)) from error


def _copy(transition: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in transition.items()}


def _some(rng: random.Random, content: list[Any]) -> dict[str, Any]:
    """Return a transition, or one of the mappings in it."""
    if not content or not isinstance(transition := rng.choice(content), dict):
        return {}
    inner = [value for value in transition.values() if isinstance(value, dict)]
    return rng.choice((transition, *inner))


def lacks(rng: random.Random, content: list[Any]) -> None:
    """Leave something out."""
    if mapping := _some(rng, content):
        del mapping[rng.choice(list(mapping))]


def holds_odd(rng: random.Random, content: list[Any]) -> None:
    """Put something else in its place."""
    if mapping := _some(rng, content):
        mapping[rng.choice(list(mapping))] = odd_value(rng) if rng.random() < 0.5 else odd_tensor(rng)


def holds_more(rng: random.Random, content: list[Any]) -> None:
    """Add something."""
    if content:
        _some(rng, content)[rng.choice(("x", 1, None, "state"))] = odd_value(rng)


def is_formed_oddly(rng: random.Random, content: list[Any]) -> None:
    """Change a tensor a little."""
    mapping = _some(rng, content)
    tensors = [name for name, value in mapping.items() if isinstance(value, torch.Tensor)]
    if tensors:
        name = rng.choice(tensors)
        mapping[name] = odd_form(rng, mapping[name])


def is_another_record(rng: random.Random, content: list[Any]) -> None:
    """Write another number into the rows, of one or of all, with a checksum that is right."""
    name = rng.choice(("version", "number", "run", "denoise_step", "feature_key"))
    values = (0, 1, 2, 4, 5, 6, 8, FIRST_EVALUATION, (1 << 31) - 1, (1 << 32) - 1)
    value = rng.choice(values[: -1 if name in ("version", "number") else None])
    if name == "denoise_step":
        value = min(value, 6)
    for transition in content if rng.random() < 0.5 else content[-1:]:
        row = transition.get("action") if isinstance(transition, dict) else None
        if isinstance(row, torch.Tensor) and row.dtype == torch.float32 and row.device.type == "cpu":
            try:
                record = unpack(row.numpy())
            except (ValueError, TypeError):
                continue
            transition["action"] = torch.from_numpy(pack(_with(record, name, value)))[None]


def _with(record: Any, name: str, value: int) -> Any:
    return type(record)(**{**vars(record), name: value})


def is_executed_otherwise(rng: random.Random, content: list[Any]) -> None:
    """Say something else of how a chunk was executed, in itself right or almost."""
    transition = rng.choice(content) if content else None
    if not isinstance(transition, dict):
        return
    executed = rng.randint(0, 4)
    rewards = [rng.choice((0.0, 1.0, -2.5)) for _ in range(max(0, executed + rng.choice((0, 0, 0, 1, -1))))]
    header = [executed, rng.choice((0.0, 1.0)), 17.0, 4.0, 0.0, -1.0]
    if rng.random() < 0.3:
        header[rng.randrange(6)] = rng.choice(ODD_NUMBERS)
    transition["complementary_info"] = {"discrete_penalty": torch.tensor([header + rewards])}
    transition["reward"] = sum(rewards) + rng.choice((0, 0, 0, 1e-6, 1.0))


def ends_otherwise(rng: random.Random, content: list[Any]) -> None:
    """Change what ends it."""
    if content and isinstance(transition := rng.choice((content[-1], content[0])), dict):
        flags = (True, False, 0, 1, torch.tensor(True), torch.tensor([0]), torch.tensor(1.0), 0.5)
        transition["done"], transition["truncated"] = rng.choice(flags), rng.choice(flags)


def is_ordered_otherwise(rng: random.Random, content: list[Any]) -> None:
    """Repeat a transition, leave one out, turn two, or put something else between."""
    if not content:
        return
    way, place = rng.randrange(4), rng.randrange(len(content))
    if way == 0:
        content.insert(place, content[place])
    elif way == 1:
        del content[place]
    elif way == 2:
        content.reverse()
    else:
        content.insert(place, odd_value(rng))


def is_written_otherwise(rng: random.Random, content: list[Any]) -> None:
    """Write the same in another way that is right as well."""
    for transition in content:
        if not isinstance(transition, dict):
            continue
        row = transition.get("action")
        if isinstance(row, torch.Tensor) and row.ndim == 2 and len(row) == 1:
            transition["action"] = row[0]
        for name in ("state", "next_state"):
            if isinstance(state := transition.get(name), dict):
                domain = state.get("observation.domain_id")
                if isinstance(domain, torch.Tensor) and domain.shape == (1,):
                    state["observation.domain_id"] = domain[None]
                transition[name] = OrderedDict(state)
        if isinstance(reward := transition.get("reward"), float) and math.isfinite(reward):
            transition["reward"] = torch.tensor([reward], dtype=torch.float64)


CHANGES = (
    *(lacks, holds_odd, holds_more, is_formed_oddly, is_formed_oddly, is_another_record, is_another_record),
    *(is_executed_otherwise, ends_otherwise, is_ordered_otherwise, is_written_otherwise),
)


def _need(condition: Any, what: str) -> None:
    if not condition:
        raise UnfitError(what)


def _array(value: Any, kind: str) -> np.ndarray:
    _need(type(value) is np.ndarray and value.dtype == np.dtype(kind), f"no tensor of {kind}")
    return value


def _number(value: Any) -> float:
    if type(value) is np.ndarray:
        _need(value.size == 1, "no number")
        value = value.reshape(-1)[0].item()
    _need(isinstance(value, bool | int | float), "no number")
    return float(value)


def _row(value: Any, spec: EpisodeSpec) -> dict[str, Any]:
    """Read an action row, as ``bridge.wire.record`` describes it."""
    row = _array(value, "<f4")
    Hx, R, L, H, A = (
        spec.n_action_steps,
        spec.env_action_dim,
        spec.num_latents,
        spec.chunk_size,
        spec.action_dim,
    )
    length = 18 + Hx * R + H + L * H * A
    _need(row.shape in ((length,), (1, length)), "row of another length")
    data = row.tobytes()
    head = struct.unpack("<18f", data[:72])
    body = np.frombuffer(data, "<f4", offset=72)
    _need(all(math.isfinite(number) and number >= 0 and number == int(number) for number in head), "header")
    _need(head[:7] == (0x504952, 2, Hx, R, L, H, A), "another row")
    _need(all(number < 65536 for number in head[8:]), "halves")
    version, number, run, key, crc = (int(head[i]) + int(head[i + 1]) * 65536 for i in range(8, 18, 2))
    _need(crc == zlib.crc32(data[: 16 * 4] + data[18 * 4 :]), "checksum")
    _need(np.isfinite(body).all(), "row not finite")
    step = int(head[7])
    _need(step in ((0,) if number >= FIRST_EVALUATION else spec.denoise_steps), "step")
    latents = body[Hx * R : Hx * R + L * H * A].reshape(L, H, A)
    return {
        **{"version": version, "number": number, "run": run, "feature_key": key, "denoise_step": step},
        **{"latents": latents, "log_prob": body[Hx * R + L * H * A :]},
    }


def _chunk(transition: dict[Any, Any], spec: EpisodeSpec) -> dict[str, Any]:
    chunk = _row(transition["action"], spec)
    _need(isinstance(transition["complementary_info"], dict), "info")
    penalty = _array(transition["complementary_info"]["discrete_penalty"], "<f4")
    _need(6 <= penalty.size <= 6 + spec.n_action_steps, "penalty")
    numbers = [float(number) for number in penalty.reshape(-1)]
    _need(all(map(math.isfinite, numbers)), "penalty not finite")
    executed, success, low, high, task, _, *rewards = numbers
    _need(executed == len(rewards) and 1 <= executed <= spec.n_action_steps, "executed")
    _need(success in (0, 1) and task in range(max(1, len(spec.task_names))), "success, task")
    _need(low in range(65536) and high in range(65536), "seed")
    reward = _number(transition["reward"])
    total = math.fsum(rewards)
    _need(abs(reward) <= 1e15, "reward")
    _need(abs(reward - total) <= max(1e-4, 1e-4 * max(abs(reward), abs(total))), "sum of rewards")
    seed = int(low) + int(high) * 65536
    chunk |= {"executed": int(executed), "success": success == 1, "task": int(task), "seed": seed}
    return {**chunk, "reward": reward}


def _observation(state: Any, spec: EpisodeSpec) -> dict[str, np.ndarray]:
    _need(isinstance(state, dict), "state")
    images = [_array(state[key], "u1") for key in spec.image_keys]
    _need(all(image.shape == (1, *spec.image_shape) for image in images), "image")
    proprio = _array(state["observation.state"], "<f4")
    _need(proprio.shape == (1, spec.proprio_dim) and np.isfinite(proprio).all(), "proprio")
    tokens = _array(state["observation.language.tokens"], "<i8")
    _need(tokens.shape == (1, spec.num_tokens) and (tokens >= 0).all(), "tokens")
    domain = _array(state["observation.domain_id"], "<i8")
    _need(domain.shape in ((1,), (1, 1)) and (domain >= 0).all(), "domain")
    return {
        "images": np.stack([image[0] for image in images]),
        **{"proprio": proprio[0], "tokens": tokens[0], "domain_id": domain.reshape(())},
    }


def _episode(content: Any, spec: EpisodeSpec) -> dict[str, Any]:
    _need(type(content) is list and 1 <= len(content) <= spec.max_chunks, "no list of transitions")
    _need(all(isinstance(transition, dict) for transition in content), "no transition")
    chunks = [_chunk(transition, spec) for transition in content]
    flags = [(_number(one["done"]), _number(one["truncated"])) for one in content]
    _need(set(flags[:-1]) <= {(0, 0)} and flags[-1] in ((0, 1), (1, 0)), "end")
    runs = {chunk["run"] for chunk in chunks}
    versions = [chunk["version"] for chunk in chunks]
    if 0 not in runs:
        _need(len(runs) == 1 and versions == sorted(versions), "run, version")
    _need(all(len({chunk[name] for chunk in chunks}) == 1 for name in ("number", "task", "seed")), "changes")
    states = [*(one["state"] for one in content), content[-1]["next_state"]]
    seen = [_observation(state, spec) for state in states]
    types = {"denoise_step": "i4", "executed": "i4", "reward": "f4", "version": "i8", "feature_key": "i8"}
    first = chunks[0]
    return {
        "observations": {name: np.stack([one[name] for one in seen]) for name in seen[0]},
        **{name: np.stack([chunk[name] for chunk in chunks]) for name in ("latents", "log_prob")},
        **{name: np.array([chunk[name] for chunk in chunks], kind) for name, kind in types.items()},
        **{"terminated": flags[-1] == (1, 0), "truncated": flags[-1] == (0, 1)},
        **{"success": chunks[-1]["success"], "seed": first["seed"], "number": first["number"]},
        "task": spec.task_names[first["task"]] if spec.task_names else "",
        "run": 0 if 0 in runs else first["run"],
    }
