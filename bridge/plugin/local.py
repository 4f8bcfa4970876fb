"""Acting with a network of this process, which the learner's pushes keep current."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from torch import Tensor

from bridge.plugin.acting import Decision
from bridge.plugin.agreement import FROZEN, fingerprint
from bridge.plugin.noise_head import NoiseHead
from bridge.plugin.sampler import sample, use_float32_head
from bridge.wire.broadcast import deserialise
from bridge.wire.record import NO_RUN
from pirl_jax.likelihood import modes
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.assignments import Assignment

_POLL_S = 0.2
_REMIND_S = 60.0
_DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool}
"""Of what is pushed; others, quantized or complex, are not to be copied into these."""

log = logging.getLogger(__name__)


class LocalActing:
    """``acting.Acting`` by a stock policy.

    Args:
        policy: In place; its class and config stay stock.
        noise: The recipe's.

    Attributes:
        channel: To the learner; None: a test, or a program that asks for chunks.
        version: Of the weights in the policy; 0 until the learner's first push.
        run: Id of the learner's process that sent them.
        noise: The recipe's, at the level that came with those weights.
    """

    def __init__(self, policy: XVLAPolicy, noise: NoiseConfig) -> None:
        self.policy: Any = policy
        self.channel: Any = None
        self.version = self.run = 0
        use_float32()
        use_float32_head(policy)
        policy.eval()
        self._generator = torch.Generator()
        self._seed_noise(torch.initial_seed() % 2**63)
        self._assigned: Assignment | None = None
        self._assigned_run = 0
        self.noise = noise
        self._mode = modes.MODES[noise.mode]
        self._head = NoiseHead.for_policy(policy, noise) if self._mode.learned_std else None

    def agreement(self) -> dict[str, Any]:
        return {FROZEN: fingerprint(self.policy.state_dict())}

    def decide(self, batch: dict[str, Tensor]) -> Decision:
        self._begin_episode()
        evaluates = self._assigned is not None and self._assigned.evaluates
        K = self.policy.config.num_denoising_steps
        step = None if evaluates else self._mode.sample_step(self._rng, K)
        drawn = sample(self.policy, batch, self.noise, step, self._generator, self._head)
        if drawn.action.shape[0] != 1:
            raise ValueError(
                f"An actor runs one environment; got a batch of {drawn.action.shape[0]} observations."
            )
        return Decision(
            action=drawn.action,
            latents=_array(drawn.latents[:, 0]),
            log_prob=_array(drawn.log_prob[0]),
            denoise_step=modes.NO_STEP if step is None else step,
            version=self.version,
            number=0 if self._assigned is None else self._assigned.number,
            run=self.run if self._assigned is None else self._assigned_run,
        )

    def receive(self, message: bytes) -> None:
        """Take over a parameter message as it came; one that cannot be read is logged and changes nothing."""
        try:
            weights = deserialise(message)
        except ValueError as error:
            log.error("Rejected a parameter push and kept version %d: %s", self.version, error)
        else:
            self.load_weights(weights)

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Copy a push: ``{"run", "version", "level", "policy": {state-dict key: tensor}}``.

        It may hold a part of the policy's tensors. One that does not fit is logged and changes nothing.
        """
        try:
            state = self.tensors()
            run, version, level, tensors = _read_push(weights, state, self._mode)
        except ValueError as error:
            log.error("Rejected a parameter push and kept version %d: %s", self.version, error)
            return
        with torch.no_grad():
            for key, tensor in tensors.items():
                state[key].copy_(tensor)
        self.run, self.version = run, version
        self.noise = dataclasses.replace(self.noise, level=level)
        log.info("Loaded version %d (%d tensors).", version, len(tensors))

    def tensors(self) -> dict[str, Tensor]:
        """Return what a push may set: the policy's tensors and the noise head's."""
        head = {} if self._head is None else self._head.state_dict()
        return self.policy.state_dict() | {f"{modes.NOISE_HEAD}.{key}": value for key, value in head.items()}

    def _begin_episode(self) -> None:
        """Before an episode's first chunk, load the version that was assigned and take up its noise."""
        if self.channel is None or (assigned := self.channel.episodes.current) is None:
            return
        self.channel.episodes.say_alive()
        if assigned is self._assigned:  # not by its number, which may be handed out again
            return
        before, run = self.run, self.channel.episodes.run
        waited = time.monotonic()
        # A newer version does as well: the one that was assigned may have been replaced on its way.
        while self.run != run or self.version < assigned.version:
            self.channel.episodes.say_alive()
            message = self.channel.parameters.take(_POLL_S)
            if message is not None:
                self.receive(message)
                if self.run not in (before, run):
                    # Of another process of the learner than had assigned the episode: one of the two is gone,
                    # and what was assigned may never be pushed. The episode is played as no process's, for
                    # nothing; the next is asked for from the one that is there.
                    run = NO_RUN
                    break
            elif self.channel.stop.is_set():
                sys.exit(0)
            elif time.monotonic() - waited > _REMIND_S:
                waited = time.monotonic()
                log.warning("Waiting for version %d of the parameters.", assigned.version)
        self._assigned, self._assigned_run = assigned, run
        self._seed_noise(assigned.noise_key)

    def _seed_noise(self, key: int) -> None:
        self._generator.manual_seed(key)
        self._rng = np.random.default_rng(key)


def _read_push(
    weights: Mapping[str, Any], state: Mapping[str, Tensor], mode: modes.Mode
) -> tuple[int, int, float, Mapping[str, Tensor]]:
    """Check a push against the actor's tensors and mode as a whole, before anything is copied."""
    if set(weights) != {"run", "version", "level", "policy"}:
        raise ValueError(
            f"a push holds 'run', 'version', 'level' and 'policy'; got {sorted(map(str, weights))}."
        )
    for name, dtype in (("run", torch.int64), ("version", torch.int64), ("level", torch.float64)):
        value = weights[name]
        if not _is_plain(value) or value.shape != () or value.dtype != dtype:
            got = " ".join(repr(value).split())[:80]
            raise ValueError(f"{name} must be a scalar tensor of {dtype}; got {got}.")
    run, version, level = int(weights["run"]), int(weights["version"]), float(weights["level"])
    if not 1 <= version < 1 << 31 or not 0 <= run < 1 << 32:
        raise ValueError(f"version must be in [1, 2^31) and run in [0, 2^32); got {version} and {run}.")
    if not 0 < level < mode.max_level:
        raise ValueError(f"the noise level must be above 0 and below {mode.max_level:.4g}; got {level}.")
    tensors = weights["policy"]
    if not isinstance(tensors, Mapping) or not tensors:
        raise ValueError("no tensors in the push.")
    for key, tensor in tensors.items():
        if key not in state:
            raise ValueError(
                f"the policy has no tensor {str(key)[:80]!r}. Do actor and learner share one policy config?"
            )
        _check_fits(key, tensor, state[key])
    return run, version, level, tensors


def _check_fits(key: str, tensor: Any, own: Tensor) -> None:
    if not _is_plain(tensor):
        raise ValueError(f"{key} is no dense tensor of float32, bfloat16 or the like.")
    if tensor.shape != own.shape:
        raise ValueError(f"{key} has shape {tuple(tensor.shape)}; the policy's is {tuple(own.shape)}.")
    if tensor.is_floating_point() != own.is_floating_point():
        raise ValueError(f"{key} is {tensor.dtype}; the policy's is {own.dtype}.")
    if not torch.isfinite(tensor.to(own.dtype)).all():
        raise ValueError(f"{key} holds NaN or infinity.")


def _is_plain(value: Any) -> bool:
    """Tell whether this is a tensor that has its numbers, one after the other, in memory."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.dtype in _DTYPES
    )


def use_float32() -> None:
    """Multiply and convolve float32 numbers in float32, as the learner does.

    LeRobot's actor has switched TF32 on by the time the algorithm is made: on a GPU with tensor cores the
    head would act with 10 bits of mantissa, and the learner score with 23.
    """
    torch.set_float32_matmul_precision("highest")  # sets torch.backends.cuda.matmul.allow_tf32 too
    torch.backends.cudnn.allow_tf32 = False


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
