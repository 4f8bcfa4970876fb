"""Where arrays lie: on one device, or over a mesh of those of a host."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from pirl_jax.recipe import MeshConfig
from pirl_jax.typing import PyTree

logger = logging.getLogger(__name__)

FSDP = "fsdp"
AXES = "data", FSDP
_IN_ORDER = {"xla_gpu_enable_latency_hiding_scheduler": False}
"""Between devices XLA reorders a program to hide transfers, and keeps what was to be computed twice: the
gradient of 256 points of X-VLA 0.9B took 74 GiB of a card so, and takes a seventh of that in order."""
_SPLIT_FROM = 4096
"""Elements from which an array is split: to gather less takes longer than it saves memory."""


class Placement:
    """Rows are shared by all devices of a mesh; what is trained is split over its ``fsdp`` axis.

    Programs are written as for one device. Where their arguments lie decides what each device computes (XLA's
    partitioner puts the sums in); :meth:`constrained` says where results are to lie, so that an update finds
    the state where the one before it did. Without a mesh everything is JAX's default device's, and none of
    this does anything.

    Args:
        mesh: with ``AXES``; None: one device.
    """

    def __init__(self, mesh: Mesh | None = None) -> None:
        self.mesh = mesh
        self.devices = 1 if mesh is None else mesh.size
        """How many share the rows: a block of them has a multiple of it."""
        self.compiler_options: Mapping[str, Any] | None = None if mesh is None else _IN_ORDER
        """Of programs with a gradient."""

    def rows(self, tree: PyTree) -> PyTree:
        """Put rows from host memory on the devices."""
        return jax.device_put(tree, self._over(PartitionSpec(AXES)))

    def whole(self, tree: PyTree) -> PyTree:
        """Put a copy of arrays on every device."""
        return jax.device_put(tree, self._over(PartitionSpec()))

    def split(self, tree: PyTree) -> PyTree:
        """Put a state on the devices, as copies that may be donated."""
        if self.mesh is None:
            return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)
        # On a CPU `device_put` may take NumPy's memory for its own.
        return jax.tree.map(lambda leaf: jnp.copy(jax.device_put(leaf, self._split(leaf.shape))), tree)

    def moved(self, tree: PyTree) -> PyTree:
        """Take a state from the default device to where it lies, if that is elsewhere."""
        return tree if self.mesh is None else self.split(tree)

    def constrained(self, tree: PyTree) -> PyTree:
        """Within a program: say that a state of these arrays lies as :meth:`split` puts it."""
        if self.mesh is None:
            return tree
        constrain: Any = jax.lax.with_sharding_constraint
        return jax.tree.map(lambda leaf: constrain(leaf, self._split(leaf.shape)), tree)

    def shared(self, tree: PyTree) -> PyTree:
        """Within a program: say that the devices share rows, if they can."""
        if self.mesh is None or len(jax.tree.leaves(tree)[0]) % self.devices:
            return tree
        return jax.lax.with_sharding_constraint(tree, self._over(PartitionSpec(AXES)))

    def first(self, tree: PyTree) -> PyTree:
        """Return what the first device has of a tree that lies on each as a :meth:`whole`."""
        return tree if self.mesh is None else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def split_shapes(self, shapes: PyTree) -> PyTree:
        """Return shapes that say where a state lies."""
        return self._shapes(shapes, self._split)

    def whole_shapes(self, shapes: PyTree) -> PyTree:
        """Return shapes that say that each device has all."""
        return self._shapes(shapes, lambda _: self._over(PartitionSpec()))

    def row_shapes(self, shapes: PyTree) -> PyTree:
        """Return shapes that say that the devices share the rows."""
        return self._shapes(shapes, lambda _: self._over(PartitionSpec(AXES)))

    def _shapes(self, shapes: PyTree, sharding: Any) -> PyTree:
        if self.mesh is None:
            return shapes
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding(leaf.shape)), shapes
        )

    def _over(self, spec: PartitionSpec) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, spec)

    def _split(self, shape: Sequence[int]) -> NamedSharding:
        """Split the longest axis that the devices can share; the first of several."""
        assert self.mesh is not None
        count = self.mesh.shape[FSDP]
        axes: list[str | None] = [None] * len(shape)
        shared = [i for i, length in enumerate(shape) if length % count == 0]
        if count > 1 and shared and math.prod(shape) >= _SPLIT_FROM:
            axes[max(shared, key=lambda i: shape[i])] = FSDP
        return NamedSharding(self.mesh, PartitionSpec(*axes))


ONE_DEVICE = Placement()


def place(config: MeshConfig) -> Placement:
    """Return where a run's arrays lie.

    Raises:
        ValueError: There are fewer devices.
    """
    devices = jax.local_devices()
    if len(devices) > config.devices:
        logger.info(
            "JAX sees %d devices, and %d are computed on (algorithm.mesh)", len(devices), config.devices
        )
    if config.devices == 1:
        return ONE_DEVICE
    if len(devices) < config.devices:
        kinds = ", ".join(sorted({device.device_kind for device in devices}))
        raise ValueError(
            f"algorithm.mesh.data={config.data} times algorithm.mesh.fsdp={config.fsdp} is {config.devices} "
            f"devices, and JAX sees {len(devices)} ({kinds}). Lower them, or let the learner see more "
            "(algorithm.launch.learner_devices, CUDA_VISIBLE_DEVICES)."
        )
    return Placement(mesh_of(devices[: config.devices], config))


def mesh_of(devices: Sequence[Any], config: MeshConfig) -> Mesh:
    """Lay devices out."""
    return Mesh(np.array(devices).reshape(config.data, config.fsdp), AXES)


def bytes_of_one(tree: PyTree) -> int:
    """Return the bytes that one device has of a tree of arrays, or of shapes."""

    def size(leaf: Any) -> int:
        sharding: Sharding | None = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))
