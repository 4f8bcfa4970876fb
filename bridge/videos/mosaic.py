"""Many films in one: a grid of episodes that begin together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge.videos.film import framed, write_film

MOST = 40
"""Tiles of a grid."""
_WIDTH, _LARGEST = 1280, 192
"""Pixels of a grid's width, and of a tile's, at most."""
_FRAMES = 300
"""Pictures of a grid at most; longer episodes are shown faster."""
_STILL_S = 2
_BORDER = 3


class Clip(NamedTuple):
    """An episode's film, and how the episode ended."""

    film: Path
    success: bool


def write_mosaic(path: Path, clips: Sequence[Clip], columns: int) -> None:
    """Write films side by side, each of which stays at its last picture, in green or in red.

    Pictures are read as they are needed: however long the films are, a few lie in memory.

    Args:
        path: Ends in ``.mp4``.
        clips: ``MOST`` at most, row by row.
        columns: Of the grid.

    Raises:
        ValueError: There are none or too many, or one is no film.
        OSError: It cannot be written.
    """
    import av

    if not 0 < len(clips) <= MOST:
        raise ValueError(f"a grid has 1 to {MOST} films; got {len(clips)}.")
    size = min(_LARGEST, _WIDTH // columns) // 2 * 2
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(av.open(str(clip.film))) for clip in clips]
            streams: list[Any] = [container.streams.video[0] for container in opened]
            longest, rate = max(stream.frames for stream in streams), float(streams[0].average_rate or 0)
        except (av.FFmpegError, IndexError) as error:
            raise ValueError(f"a film of the grid cannot be read ({error}).") from error
        for stream in streams:
            stream.thread_count = 1  # there are many of them
        if not longest or not rate:
            raise ValueError("a film of the grid has no pictures.")
        stride = -(-longest // _FRAMES)
        fps = max(1, round(rate / stride))
        tiles = [
            _tile(container, stream, clip.success, size, stride)
            for container, stream, clip in zip(opened, streams, clips)
        ]
        length = -(-longest // stride) + _STILL_S * fps
        write_film(path, _grids(tiles, columns, size, length), fps)


def _grids(
    tiles: Sequence[Iterator[np.ndarray]], columns: int, size: int, length: int
) -> Iterator[np.ndarray]:
    rows = -(-len(tiles) // columns)
    grid = np.zeros((rows, columns, size, size, 3), np.uint8)
    for _ in range(length):
        for number, tile in enumerate(tiles):
            grid[divmod(number, columns)] = next(tile)
        yield grid.swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def _tile(container: Any, stream: Any, success: bool, size: int, stride: int) -> Iterator[np.ndarray]:
    """Yield every so many pictures of a film, then its last one, framed, for ever."""
    import av

    picture = np.zeros((size, size, 3), np.uint8)
    try:
        for number, frame in enumerate(container.decode(stream)):
            if number % stride == 0:
                picture = frame.reformat(width=size, height=size, format="rgb24").to_ndarray()
                yield picture
    except av.FFmpegError as error:
        raise ValueError(f"a film of the grid is damaged ({error}).") from error
    still = framed(picture, success, _BORDER)
    while True:
        yield still
