"""The policy server of a run: who acts, in which batches, and what is kept for the learner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp

from pirl_jax.placement import ONE_DEVICE, Placement
from pirl_jax.policy import FlowPolicy
from pirl_jax.recipe import NoiseConfig, ServeConfig
from pirl_jax.rollout.behaviour import Behaviour
from pirl_jax.rollout.encoded import Encoded
from pirl_jax.serving.acting import Acted, ActingPolicy, Asked
from pirl_jax.serving.batching import Batcher
from pirl_jax.typing import Params

_GIB = 1 << 30


class PolicyService:
    """Everything of a policy server but its wire. A context manager while it answers.

    Args:
        policy: who acts.
        noise: the actors'.
        settings: ``algorithm.serve``.
        clients: how many may be asking at the moment; None: not known.
        keeps: whether encoded observations are kept for a learner in this process.
        placement: who shares a batch.

    Attributes:
        acting: the policy.
        batcher: its questions.
        encoded: what is kept; None: nothing.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        noise: NoiseConfig,
        settings: ServeConfig,
        clients: Callable[[], int] | None = None,
        keeps: bool = True,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        self.encoded = Encoded(settings.features_gb * _GIB) if keeps else None
        sizes = batch_sizes(settings.max_batch)
        self.acting = ActingPolicy(policy, noise, sizes, self.encoded, placement)
        self.batcher: Batcher[Asked, Acted] = Batcher(
            self.acting,
            settings.max_batch,
            settings.max_wait_ms / 1000,
            clients,
        )

    def __enter__(self) -> Self:
        self.batcher.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.batcher.__exit__()

    def compile(
        self,
        frozen: Params,
        params: Params,
        images: tuple[int, ...],
        N: int,
        P: int,
    ) -> int:
        """Compile what will run; return the bytes that it takes of a device, beside the encoder's.

        Args:
            frozen: the encoder's parameters, or their shapes.
            params: the trainable parameters, or their shapes.
            images: V, C, h, w of an observation.
            N: its token ids.
            P: its proprioception, prepared.
        """
        inputs = (
            jax.ShapeDtypeStruct(images, jnp.uint8),
            jax.ShapeDtypeStruct((N,), jnp.int32),
            jax.ShapeDtypeStruct((P,), jnp.float32),
        )
        head = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
        # A new version is there before the one that acts is let go.
        return 2 * head + self.acting.compile(frozen, inputs, params)

    def begin(self, frozen: Params) -> None:
        """Give the encoder's parameters, a copy on each device."""
        self.acting.frozen = frozen

    def publish(self, run: int, version: int, behaviour: Behaviour) -> None:
        """Act with these parameters from the next batch on; ``run`` is the learner's process's id."""
        self.acting.load(run, version, behaviour)

    def metrics(self) -> dict[str, float]:
        """Return what the server has done, totals since it began and means over them."""
        totals = self.batcher.totals
        answered, batches = max(1, totals.answered), max(1, totals.batches)
        kept = {}
        if self.encoded is not None:
            store = self.encoded.stats()
            kept = {"serve/held_gb": store.held_bytes / _GIB, "serve/evicted": store.evicted}
        return {
            "serve/chunks": totals.answered,
            "serve/batch": totals.answered / batches,
            "serve/wait_ms": 1000 * totals.waited_s / answered,
            "serve/batch_ms": 1000 * totals.answering_s / batches,
            **kept,
        }


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """Return the powers of two below ``max_batch``, and itself."""
    return (*(1 << bit for bit in range((max_batch - 1).bit_length())), max_batch)
