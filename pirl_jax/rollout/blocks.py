"""Observations of episodes, in blocks of few static sizes: which come when, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from pirl_jax.policy import FlowPolicy
from pirl_jax.rollout.encoded import Encoded, digest
from pirl_jax.rollout.episode import Episode
from pirl_jax.rows import Joined, cut
from pirl_jax.typing import Array, Features, PyTree

NOT_SCORED = -1
"""In place of a version."""


class Rows(NamedTuple):
    """Observations of several episodes: those at which chunks were chosen, then the final ones."""

    images: Joined
    tokens: np.ndarray
    proprio: np.ndarray
    domain_id: np.ndarray
    version: np.ndarray
    """Of the policy that chose; ``NOT_SCORED`` of final ones."""
    feature_key: np.ndarray
    latents: Joined
    """Of what was chosen; some chunk's at final ones."""
    denoise_step: np.ndarray


def rows_of(policy: FlowPolicy, episodes: Sequence[Episode]) -> Rows:
    """Return the rows of episodes, at least one."""
    observations, finals = [episode.observations for episode in episodes], len(episodes)

    def in_order(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [array[:-1] for array in arrays] + [array[-1:] for array in arrays]

    def of_chunks(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return arrays + finals * [arrays[-1][-1:]]

    def integers(arrays: list[np.ndarray], final: int) -> np.ndarray:
        return np.concatenate([*arrays, np.full(finals, final)])

    return Rows(
        Joined(in_order([each.images for each in observations])),
        np.concatenate(in_order([each.tokens for each in observations])).astype(np.int32),
        policy.prepare_proprio(np.concatenate(in_order([each.proprio for each in observations]))),
        np.concatenate(in_order([each.domain_id for each in observations])).astype(np.int32),
        integers([each.version for each in episodes], NOT_SCORED),
        integers([each.feature_key for each in episodes], 0),
        Joined(of_chunks([each.latents for each in episodes])),
        np.concatenate(of_chunks([each.denoise_step for each in episodes])),
    )


def taken(rows: Rows, encoded: Encoded) -> dict[int, Features]:
    """Return the features of rows that have been encoded already, by row; they are taken from there."""
    found = {}
    for row in map(int, np.flatnonzero(rows.feature_key)):
        name = digest(rows.images[np.array([row])][0], rows.tokens[row])
        features = encoded.take(int(rows.feature_key[row]), name)
        if features is not None:
            found[row] = features
    return found


def blocks(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and size of blocks that cover ``count`` rows, the last of which may reach beyond.

    They have the first size while they are full, then the last.
    """
    start = 0
    while start < count:
        size = sizes[0] if count - start >= sizes[0] else sizes[-1]
        yield start, size
        start += size


def turns(
    version: np.ndarray, there: Mapping[int, Features], sizes: Sequence[int]
) -> Iterator[tuple[np.ndarray, Features | None]]:
    """Yield the rows of each block, and their features if nothing of them need be encoded.

    First come rows that must be encoded, then those that have been and are scored: a block is of one kind.
    In either, rows that are scored come by version, then the others. The last block is filled by repeating
    its last row.

    Args:
        version: of each row.
        there: features of those that have been encoded.
        sizes: of blocks.
    """
    has_been = np.isin(np.arange(len(version)), list(there))
    for of_kind in (~has_been, has_been & (version != NOT_SCORED)):
        rows = np.flatnonzero(of_kind)
        rows = rows[np.lexsort((version[rows], version[rows] == NOT_SCORED))]
        for start, size in blocks(len(rows), sizes):
            chosen = rows[np.minimum(np.arange(start, start + size), len(rows) - 1)]
            features = None
            if has_been[chosen[0]]:
                features = jax.tree.map(lambda *each: np.concatenate(each), *(there[int(i)] for i in chosen))
            yield chosen, features


class Results:
    """Features and scores of rows, in host memory: each block is fetched while the one after it runs.

    Args:
        version: of each row.
        there: features of rows that have been encoded already.
        chunk_size: H.

    Attributes:
        log_prob: of each row's chunk steps [rows, H]; 0 if it was not scored.
    """

    def __init__(self, version: np.ndarray, there: Mapping[int, Features], chunk_size: int) -> None:
        self.log_prob = np.zeros((len(version), chunk_size), np.float32)
        self._version, self._parts = version, list(there.values())
        self._place, self._end = np.zeros(len(version), int), len(there)
        self._place[list(there)] = np.arange(len(there))
        self._running: tuple[np.ndarray, PyTree | None, Mapping[int, Array]] | None = None

    def add(self, chosen: np.ndarray, encoded: PyTree | None, scores: Mapping[int, Array]) -> None:
        """Note what runs now, and fetch what ran before.

        Args:
            chosen: the block's rows.
            encoded: what they are encoded to; None if that has been done before.
            scores: of the block, by version.
        """
        self.finish()
        self._running = chosen, encoded, scores

    def finish(self) -> None:
        """Fetch what runs."""
        if self._running is None:
            return
        (chosen, encoded, scores), self._running = self._running, None
        rows, first = np.unique(chosen, return_index=True)  # what fills a block is there already
        if encoded is not None:
            self._parts.append(jax.device_get(encoded))
            self._place[rows] = self._end + first
            self._end += len(chosen)
        for version, log_prob in scores.items():
            of_version = self._version[rows] == version
            self.log_prob[rows[of_version]] = np.asarray(log_prob)[first[of_version]]

    def features(self, rows: np.ndarray) -> Features:
        """Return a copy of the features of rows; nothing may be running."""
        assert self._running is None
        joined: Any = jax.tree.map(lambda *each: Joined(each), *self._parts)
        return cut(joined, self._place[rows])
