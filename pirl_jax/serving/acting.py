"""Chunks for many observations at a time: encoder and denoising chain in one program a batch size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pirl_jax.likelihood import flow
from pirl_jax.likelihood.modes import NO_STEP
from pirl_jax.likelihood.stochastic import Observed, StochasticPolicy
from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.encoded import Encoded, digest
from pirl_jax.typing import Array, Float, Int, Params, PyTree, UInt8


@dataclass(frozen=True)
class Asked:
    """An observation at which a chunk is to be chosen, and what its noise follows from; host memory."""

    images: UInt8[np.ndarray, "V C h w"]
    tokens: Int[np.ndarray, " N"]
    proprio: Float[np.ndarray, " P"]
    """As the robot gives it."""
    domain_id: int
    noise_key: int
    """Of the episode (``assignments.noise_key``), in [0, 2^63)."""
    chunk: int
    """Index of the chunk in its episode."""
    noise_free: bool = False
    """Whether it is chosen by the policy's own sampler, of whose noise only the first is drawn, and kept
    nowhere: nobody learns from it."""


@dataclass(frozen=True)
class Acted:
    """A chunk, as a local policy would have drawn it; host memory."""

    action: Float[np.ndarray, "H A"]
    """The chain's end, in the model's channels, before any post-processing."""
    latents: Float[np.ndarray, "L H A"]
    log_prob: Float[np.ndarray, " H"]
    denoise_step: int
    """Index k of the (first) noised step; ``modes.NO_STEP`` without noise."""
    run: int
    """Id of the learner's process that has made the parameters that chose it."""
    version: int
    """Of those parameters."""
    feature_key: int
    """Of the encoded observation (``rollout.encoded``); 0: nobody keeps it."""


@dataclass(frozen=True)
class _Loaded:
    run: int
    version: int
    level: float
    params: Params


class ActingPolicy:
    """The newest policy on the device, and the programs by which it acts.

    What an observation is answered with follows from the observation, the version of the parameters and its
    noise, and not from what else is in its batch, to the rounding by which the programs of two sizes differ,
    and two places in one batch.

    Args:
        policy: Who acts.
        noise: Where its randomness is.
        sizes: Of batches, ascending; the last is the most observations in one call. Smaller batches are
            filled up.
        encoded: Where encoded observations are kept for the learner; None: nowhere.
        placement: Who shares a batch of a multiple of its devices. A smaller one each computes whole.

    Attributes:
        frozen: The encoder's parameters, a copy on each device; to be set before the first call.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        noise: NoiseConfig,
        sizes: Sequence[int],
        encoded: Encoded | None = None,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        self._policy, self._placement = policy, placement
        self.sizes, self._encoded = tuple(sizes), encoded
        self.frozen: Params = {}
        self._stochastic = StochasticPolicy.of(policy, noise)
        self._program = jax.jit(self._act)
        self._compiled: dict[int, Any] = {}
        self._loaded: _Loaded | None = None
        self._changed = threading.Condition()

    def compile(
        self,
        frozen: Params,
        inputs: Sequence[jax.ShapeDtypeStruct],
        params: PyTree,
    ) -> int:
        """Compile the program of every size; return the bytes of a device's memory that the largest takes.

        Args:
            frozen: The encoder's parameters, or their shapes.
            inputs: Shapes of one observation: images, tokens, prepared proprioception, without batch.
            params: The trainable parameters, or their shapes.
        """
        needed, of, place = 0, jax.ShapeDtypeStruct, self._placement
        masters = jax.tree.map(lambda leaf: of(leaf.shape, jnp.float32), params)
        encoder = jax.tree.map(lambda leaf: of(leaf.shape, leaf.dtype), frozen)
        held = place.whole_shapes((encoder, masters))
        for size in self.sizes:
            rows = [of((size, *each.shape), each.dtype) for each in inputs]
            rows += [of((size,), jnp.int32)] * 3 + [of((size, 2), jnp.uint32)]
            rows = place.row_shapes(rows) if self._shared(size) else place.whole_shapes(rows)
            lowered = self._program.lower(*held, *rows, place.whole_shapes(of((), jnp.float32)))
            program = self._compiled[size] = lowered.compile()
            if (memory := program.memory_analysis()) is not None:
                needed = max(needed, memory.temp_size_in_bytes + memory.output_size_in_bytes)
        return needed

    @property
    def acts(self) -> tuple[int, int]:
        """Run and version of the parameters that act; (0, 0): none yet."""
        return (0, 0) if self._loaded is None else (self._loaded.run, self._loaded.version)

    def load(self, run: int, version: int, behaviour: Behaviour) -> None:
        """Act with these parameters from the next batch on."""
        params = self._placement.whole(
            jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), behaviour.params)
        )
        with self._changed:
            self._loaded = _Loaded(run, version, behaviour.level, params)
            self._changed.notify_all()

    def wait_for(self, ready: Callable[[int, int], bool], timeout: float) -> bool:
        """Wait until ``ready(run, version)`` of the parameters that act; False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: ready(*self.acts), timeout)

    def __call__(self, asked: Sequence[Asked]) -> list[Acted]:
        """Choose a chunk for each observation.

        Raises:
            ValueError: There are none, more than the largest size, or no parameters yet.
        """
        loaded = self._loaded
        if loaded is None or not 0 < len(asked) <= self.sizes[-1]:
            raise ValueError(f"{len(asked)} observations, version {self.acts[1]}; at most {self.sizes[-1]}.")
        size = next(size for size in self.sizes if size >= len(asked))
        filled = [*asked, *[asked[-1]] * (size - len(asked))]
        steps = [self._first_noised(each) for each in filled]
        inputs = (
            np.stack([each.images for each in filled]),
            np.stack([each.tokens for each in filled]).astype(np.int32),
            self._policy.prepare_proprio(np.stack([each.proprio for each in filled])),
            np.array([each.domain_id for each in filled], np.int32),
            np.array([each.chunk for each in filled], np.int32),
            np.array(steps, np.int32),
            np.array([divmod(each.noise_key, 1 << 32) for each in filled], np.uint32),
        )
        rows = self._placement.rows(inputs) if self._shared(size) else self._placement.whole(inputs)
        level = self._placement.whole(np.float32(loaded.level))
        program = self._compiled.get(size, self._program)
        features, chunk = jax.device_get(program(self.frozen, loaded.params, *rows, level))
        keys = [0] * len(asked)
        if self._encoded is not None:
            digests = [None if each.noise_free else digest(each.images, each.tokens) for each in asked]
            keys = self._encoded.put(features, digests)
        return [
            Acted(
                action=chunk.action[i],
                latents=chunk.latents[i],
                log_prob=chunk.log_prob[i],
                denoise_step=steps[i],
                run=loaded.run,
                version=loaded.version,
                feature_key=keys[i],
            )
            for i in range(len(asked))
        ]

    def _shared(self, size: int) -> bool:
        return size % self._placement.devices == 0

    def _first_noised(self, asked: Asked) -> int:
        if asked.noise_free:
            return NO_STEP
        rng = np.random.default_rng((asked.noise_key, asked.chunk))
        return self._stochastic.chain.mode.sample_step(rng, self._policy.num_denoising_steps)

    def _act(
        self,
        frozen: Params,
        params: Params,
        images: Array,
        tokens: Array,
        proprio: Array,
        domain_id: Array,
        chunk: Array,
        denoise_step: Array,
        noise_key: Array,
        level: Array,
    ) -> tuple[PyTree, flow.Chunk]:
        # The head must see what the learner will: features rounded to the encoder's dtype, which a compiler
        # may leave out between the two halves of one program.
        features = jax.lax.optimization_barrier(self._policy.encode(frozen, images, tokens))
        keys = jax.vmap(lambda key, n: jax.random.fold_in(jax.random.wrap_key_data(key), n))(noise_key, chunk)
        levels = jnp.broadcast_to(level, denoise_step.shape)
        observed = Observed(features, proprio, domain_id)
        shape = (self._policy.chunk_size, self._policy.dim_action)
        return features, self._stochastic.sample(params, observed, keys, denoise_step, levels, shape)
