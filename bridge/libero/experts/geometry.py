"""Boxes in the world: their corners and inner points, and whether two of them overlap. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_PARALLEL = 1e-9
"""Cross products of axes that are this short say nothing: the axes themselves do."""


@dataclass(frozen=True)
class Boxes:
    """N boxes, each turned as it likes; metres."""

    centers: np.ndarray
    """[N, 3]."""
    rotations: np.ndarray
    """[N, 3, 3]: a box's own axes are the columns."""
    half_sizes: np.ndarray
    """[N, 3], along the box's own axes."""

    def __len__(self) -> int:
        return len(self.centers)

    def __getitem__(self, which: np.ndarray) -> Boxes:
        return Boxes(self.centers[which], self.rotations[which], self.half_sizes[which])

    @classmethod
    def concatenate(cls, boxes: list[Self]) -> Self:
        """Return all boxes of several collections as one; of none, an empty one."""
        empty = cls(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros((0, 3)))
        fields = ("centers", "rotations", "half_sizes")
        return cls(*(np.concatenate([getattr(part, name) for part in [empty, *boxes]]) for name in fields))

    def corners(self) -> np.ndarray:
        """Return the corners, [8 N, 3]."""
        return self._placed(_SIGNS * self.half_sizes[:, None]).reshape(-1, 3)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest coordinates of all boxes together, [3] each."""
        corners = self.corners()
        return corners.min(0), corners.max(0)

    def points(self, spacing: float) -> np.ndarray:
        """Return points [M, 3] that fill the boxes, faces included, at most ``spacing`` metres apart."""
        return np.concatenate(
            [self[np.array([index])]._grid(spacing) for index in range(len(self))] or [np.zeros((0, 3))]
        )

    def _grid(self, spacing: float) -> np.ndarray:
        (half,) = self.half_sizes
        axes = [np.linspace(-size, size, 1 + max(1, int(np.ceil(2 * size / spacing)))) for size in half]
        return self._placed(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3))[0]

    def _placed(self, inside: np.ndarray) -> np.ndarray:
        """Points [N, M, 3] of the boxes' own frames, in the world."""
        return np.einsum("nij,nmj->nmi", self.rotations, inside) + self.centers[:, None]


def upright(low: np.ndarray, high: np.ndarray, angle: float = 0.0, at: np.ndarray | None = None) -> Boxes:
    """Return one box that is given in a frame of its own, turned about the vertical.

    Args:
        low: Its least coordinates in the frame, [3].
        high: Its greatest, [3].
        angle: Of the frame's first axis in the world's horizontal plane, radians.
        at: The frame's origin in the world, [3]; the world's if not given.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    low, high = np.asarray(low, float), np.asarray(high, float)
    origin = np.zeros(3) if at is None else np.asarray(at, float)
    return Boxes((origin + rotation @ (low + high) / 2)[None], rotation[None], (high - low)[None] / 2)


def overlap(one: Boxes, other: Boxes) -> np.ndarray:
    """Return which of N boxes and which of M share a volume, bool [N, M].

    By the separating axis theorem: two boxes are apart if and only if their shadows are, on one of the six
    face normals or the nine cross products of edges (Gottschalk, Lin, Manocha: OBBTree, SIGGRAPH 1996).
    """
    N, M = len(one), len(other)
    own, its = one.rotations.transpose(0, 2, 1), other.rotations.transpose(0, 2, 1)  # rows are axes
    own, its = (np.broadcast_to(a, (N, M, 3, 3)) for a in (own[:, None], its[None]))
    crosses = np.cross(own[:, :, :, None], its[:, :, None]).reshape(N, M, 9, 3)
    axes = np.concatenate([own, its, crosses], axis=2)
    between = np.abs(np.einsum("nmad,nmd->nma", axes, other.centers[None] - one.centers[:, None]))
    reach = _reach(axes, own, one.half_sizes[:, None]) + _reach(axes, its, other.half_sizes[None])
    apart = (between >= reach) & (np.linalg.norm(axes, axis=-1) > _PARALLEL)
    return ~apart.any(-1)


def _reach(axes: np.ndarray, rows: np.ndarray, half_sizes: np.ndarray) -> np.ndarray:
    """How far boxes reach from their centres along axes, [N, M, 15]."""
    return np.einsum("nmac,nmc->nma", np.abs(axes @ rows.swapaxes(-1, -2)), np.broadcast_to(half_sizes, rows.shape[:3]))


def top_within(column: Boxes, boxes: Boxes, ground: float) -> float:
    """Return the height of the highest box that overlaps a column, ``ground`` where there is none."""
    hit = boxes[overlap(column, boxes)[0]]
    return max(ground, float(hit.corners()[:, 2].max())) if len(hit) else ground
