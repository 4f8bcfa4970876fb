"""Boxes in the world: their corners and inner points, and whether two of them overlap. NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

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


def upright(low: ArrayLike, high: ArrayLike, angle: float = 0.0, at: ArrayLike = (0.0, 0.0, 0.0)) -> Boxes:
    """Return boxes that are given in a frame of their own, which is turned about the vertical.

    Args:
        low: Their least coordinates in the frame, [3] or [N, 3].
        high: Their greatest, likewise.
        angle: Of the frame's first axis in the world's horizontal plane, radians.
        at: The frame's origin in the world, [3].
    """
    low, high = np.atleast_2d(low).astype(float), np.atleast_2d(high).astype(float)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    centers = (low + high) / 2 @ rotation.T + np.asarray(at)
    return Boxes(centers, np.broadcast_to(rotation, (len(low), 3, 3)), (high - low) / 2)


def overlap(one: Boxes, other: Boxes) -> np.ndarray:
    """Return which of N boxes and which of M share a volume, bool [N, M].

    By the separating axis theorem: two boxes are apart if and only if their shadows are, on one of the six
    face normals or the nine cross products of edges (Gottschalk, Lin, Manocha: OBBTree, SIGGRAPH 1996).
    """
    between = np.linalg.norm(one.centers[:, None] - other.centers, axis=-1)
    near = between < np.add.outer(*(np.linalg.norm(boxes.half_sizes, axis=-1) for boxes in (one, other)))
    first, second = np.nonzero(near)  # of all pairs, those whose spheres meet
    near[first, second] = _meet(one[first], other[second])
    return near


def _meet(one: Boxes, other: Boxes) -> np.ndarray:
    """Which of P pairs overlap, bool [P]."""
    own, its = one.rotations.swapaxes(1, 2), other.rotations.swapaxes(1, 2)  # rows are axes
    crosses = np.cross(own[:, :, None], its[:, None]).reshape(-1, 9, 3)
    axes = np.concatenate([own, its, crosses], axis=1)
    between = np.abs(np.einsum("pad,pd->pa", axes, other.centers - one.centers))
    reach = sum(
        np.einsum("pac,pc->pa", np.abs(axes @ boxes.rotations), boxes.half_sizes) for boxes in (one, other)
    )
    apart = (between >= reach) & (np.linalg.norm(axes, axis=-1) > _PARALLEL)
    return ~apart.any(1)


def top_within(column: Boxes, boxes: Boxes, ground: float) -> float:
    """Return the height of the highest box that overlaps a column, ``ground`` where there is none."""
    hit = boxes[overlap(column, boxes)[0]]
    return max(ground, float(hit.corners()[:, 2].max())) if len(hit) else ground
