"""Parameter messages, as actors receive them of their learner."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fake_actor import no_stock_actor
from lerobot.policies.xvla import XVLAPolicy
from tiny import tiny_policy_config

from bridge.plugin.local import LocalActing
from pirl_jax.recipe import NoiseConfig

from . import Made, UnfitError, odd_value
from .archive import Rounded, odd_form, odd_tensor, reread, spoilt, written

_MOST_PICKLED = 1 << 20
_FLOATS = {np.dtype("f8"), np.dtype("f4"), np.dtype("f2")}
_WHOLE = {np.dtype("i8"), np.dtype("i4"), np.dtype("?")}


class Pushes:
    """To an actor of a tiny policy with a noise head."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        noise = NoiseConfig(mode="flow_noise", level=0.1, head_hidden_dims=(6,))
        with no_stock_actor():
            self._acting = LocalActing(XVLAPolicy(tiny_policy_config()), noise)
        self._state = self._acting.tensors()
        self._right = {name: value.clone() for name, value in self._state.items()}
        small = [name for name, value in self._state.items() if value.numel() <= 64]
        self._named = [name for name in small if name.startswith("noise_head.")] + small[:6]
        self._refusals = 0

    def make(self, rng: random.Random) -> Made:
        policy = {}
        for name in rng.sample(self._named, rng.randint(1, 3)):
            value = torch.randn(self._right[name].shape) if self._is_float(name) else self._right[name]
            policy[name] = value.to(rng.choice((torch.float32, torch.bfloat16, value.dtype)))
            if not self._is_float(name):
                policy[name] = value
        content: Any = {
            "run": torch.tensor(rng.randrange(1 << 32)),
            "version": torch.tensor(rng.randrange(1, 1 << 31)),
            "level": torch.tensor(rng.uniform(1e-3, 0.9), dtype=torch.float64),
            "policy": policy,
        }
        done = []
        for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
            change = rng.choice(
                (_lacks, _holds_odd, _holds_more, _is_formed_oddly, _is_formed_oddly, _counts)
            )
            done.append(change.__name__)
            change(rng, content, content.get("policy"))
        if rng.random() < 0.02:
            content = rng.choice((list(content), policy, {}, None, odd_value(rng)))
        data = written(content)
        if rng.random() < 0.3:
            return Made(spoilt(rng, data), True, (*done, "spoilt"))
        return Made(data, False, tuple(done))

    def read(self, data: bytes) -> Any:
        acting = self._acting
        acting.run = acting.version = 0
        with _heard() as said:
            acting.receive(data)
        (record,) = said
        text = record.getMessage()
        assert "\n" not in text
        assert len(text) < 1000
        if record.levelno == logging.ERROR:
            self._refusals += 1
            # All of the policy now and then, else what is pushed of it.
            looked_at = self._right if self._refusals % 500 == 0 else self._named
            assert all(torch.equal(self._state[name], self._right[name]) for name in looked_at), "changed"
            assert (acting.run, acting.version) == (0, 0)
            raise UnfitError(_word(text))
        changed = {
            name: self._state[name].numpy().copy()
            for name in self._right
            if not torch.equal(self._state[name], self._right[name])
        }
        for name in changed:
            self._state[name].copy_(self._right[name])
        return {"run": acting.run, "version": acting.version, "level": acting.noise.level, "policy": changed}

    def reread(self, data: bytes) -> Any:
        try:
            return self._push(reread(data, _MOST_PICKLED, wide=True))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise UnfitError(repr(error)) from error

    def _push(self, push: Any) -> dict[str, Any]:
        if not isinstance(push, dict) or set(push) != {"run", "version", "level", "policy"}:
            raise UnfitError("keys")
        run, version = (_scalar(push[name], "i8") for name in ("run", "version"))
        level = _scalar(push["level"], "f8")
        if not (0 <= run < 2**32 and 1 <= version < 2**31 and 0 < level < float("inf")):
            raise UnfitError("range")
        if not isinstance(push["policy"], dict) or not push["policy"]:
            raise UnfitError("policy")
        changed = {}
        for name, value in push["policy"].items():
            own = self._right[name].numpy()
            if not isinstance(value, np.ndarray) or value.shape != own.shape:
                raise UnfitError("tensor")
            kinds = _FLOATS if own.dtype in _FLOATS else _WHOLE
            if value.dtype not in kinds:
                raise UnfitError("type")
            with np.errstate(over="ignore", invalid="ignore"):
                plain = np.ascontiguousarray(np.asarray(value)).astype(own.dtype).reshape(own.shape)
            if not np.isfinite(plain).all():
                raise UnfitError("not finite")
            if not np.array_equal(plain, own):
                changed[name] = plain
        return {"run": int(run), "version": int(version), "level": float(level), "policy": changed}

    def _is_float(self, name: str) -> bool:
        return self._right[name].is_floating_point()


@contextmanager
def _heard() -> Iterator[list[logging.LogRecord]]:
    """Collect what the actor says."""
    said: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("bridge.plugin.local")
    handler.emit, level = said.append, logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = True
        logger.setLevel(level)
        logger.removeHandler(handler)


def _scalar(value: Any, kind: str) -> Any:
    if not isinstance(value, np.ndarray) or isinstance(value, Rounded):
        raise UnfitError("no scalar")
    if value.shape != () or value.dtype != np.dtype(kind):
        raise UnfitError("scalar")
    return value[()]


def _word(text: str) -> str:
    """Return which refusal it was, without names and numbers."""
    words = (
        *(
            "cannot be read",
            "must be a mapping",
            "a push holds",
            "must be a scalar",
            "must be in",
            "noise level",
        ),
        *("no tensors", "has no tensor", "no dense tensor", "has shape", "holds NaN", "; the policy's is"),
    )
    return next(word for word in words if word in text)


def _lacks(rng: random.Random, content: Any, policy: Any) -> None:
    where = content if rng.random() < 0.5 or not isinstance(policy, dict) else policy
    if where:
        del where[rng.choice(list(where))]


def _holds_odd(rng: random.Random, content: Any, policy: Any) -> None:
    where = content if rng.random() < 0.5 or not isinstance(policy, dict) else policy
    if where:
        where[rng.choice(list(where))] = odd_value(rng) if rng.random() < 0.4 else odd_tensor(rng)


def _holds_more(rng: random.Random, content: Any, policy: Any) -> None:
    where = content if rng.random() < 0.3 or not isinstance(policy, dict) else policy
    where[rng.choice(("x", "model.nothing", 1, None))] = odd_tensor(rng)


def _is_formed_oddly(rng: random.Random, content: Any, policy: Any) -> None:
    where = content if rng.random() < 0.3 or not isinstance(policy, dict) else policy
    tensors = [name for name, value in where.items() if isinstance(value, torch.Tensor)]
    if tensors and (tensor := where[name := rng.choice(tensors)]).device.type == "cpu":
        where[name] = odd_form(rng, tensor) if tensor.layout is torch.strided else tensor


def _counts(rng: random.Random, content: Any, policy: Any) -> None:
    """Have a number be at the edge of what it may be."""
    name = rng.choice(("run", "version", "level"))
    if name == "level":
        content[name] = torch.tensor(rng.choice((0.0, -0.1, 1e-300, 5.0, float("nan"))), dtype=torch.float64)
    else:
        content[name] = torch.tensor(rng.choice((-1, 0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)))
