"""MP4 files that a browser plays, whole or absent."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from pirl_jax.files import write_file

SUFFIX = ".mp4"
SUCCESS, FAILURE = (60, 180, 75), (215, 60, 60)
"""Colours of a frame's border, once it is known how the episode has ended."""
_CODEC, _QUALITY = "libx264", {"crf": "23", "preset": "veryfast"}


def write_film(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Write pictures as H.264 in an MP4, which takes the place of ``path`` when it is complete.

    Args:
        path: Ends in ``.mp4``; its folder is made.
        frames: uint8 [h, w, 3], one at least, all of one size.
        fps: Pictures a second.

    Raises:
        OSError: It cannot be written.
    """
    import av  # a tenth of a second, which most commands do not need

    try:
        write_file(path, lambda partial: _encode(partial, frames, fps))
    except av.FFmpegError as error:
        raise OSError(f"{path} cannot be written ({error}).") from error


def _encode(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        for frame in frames:
            # Of H.264 as browsers play it, two by two pixels have a colour.
            even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream(_CODEC, rate=Fraction(fps), options=_QUALITY)
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1  # the other cores have a learner or a simulator
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read_film(path: Path, most: int) -> tuple[np.ndarray, float]:
    """Return the pictures of a film, uint8 [N, h, w, 3], and how many there are a second.

    Args:
        path: Of the film.
        most: Pictures that are read, from its beginning.

    Raises:
        ValueError: It is no film, or damaged.
    """
    import av

    frames: list[np.ndarray] = []
    rate = 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(cast(Any, stream).average_rate or 0)
            for frame in container.decode(stream):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == most:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as a film ({error}).") from error
    if not frames or not rate:
        raise ValueError(f"{path} has no pictures.")
    return np.stack(frames), rate


def framed(picture: np.ndarray, success: bool, border: int = 6) -> np.ndarray:
    """Return the picture in a border that says how its episode has ended: green, or red."""
    result = np.empty_like(picture)
    result[:] = SUCCESS if success else FAILURE
    result[border:-border, border:-border] = picture[border:-border, border:-border]
    return result
