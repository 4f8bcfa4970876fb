"""Camera frames → what the vision tower reads."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from pirl_jax.typing import Array, Float, UInt8, typed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@typed
def normalize_images(images: UInt8[Array, "*B 3 h w"]) -> Float[Array, "*B 3 h w"]:
    """Scale bytes to [0, 1] and standardise with ImageNet's statistics, in float32."""
    mean = jnp.array(IMAGENET_MEAN, jnp.float32)[:, None, None]
    std = jnp.array(IMAGENET_STD, jnp.float32)[:, None, None]
    return (images.astype(jnp.float32) / 255 - mean) / std


@typed
def resize_with_pad(images: Float[Array, "*B C h w"], height: int, width: int) -> Float[Array, "*B C h2 w2"]:
    """Resize without distortion and pad with zeros on the left and the top (LeRobot's ``resize_with_pad``).

    Bilinear without antialiasing and with half-pixel centres, as torch's
    ``interpolate(align_corners=False)``.
    """
    h, w = images.shape[-2:]
    if (h, w) == (height, width):
        return images
    ratio = max(w / width, h / height)
    new_h, new_w = int(h / ratio), int(w / ratio)
    images = _interpolate(_interpolate(images, new_h, axis=-2), new_w, axis=-1)
    padding = [(0, 0)] * (images.ndim - 2) + [(max(0, height - new_h), 0), (max(0, width - new_w), 0)]
    return jnp.pad(images, padding)


def _interpolate(x: Array, size: int, *, axis: int) -> Array:
    old = x.shape[axis]
    if old == size:
        return x
    # In the image's own precision, as torch does: the weights' rounding is part of the result.
    real = np.dtype(x.dtype).type
    source = np.maximum(
        real(old) / real(size) * (np.arange(size, dtype=real) + real(0.5)) - real(0.5), real(0)
    )
    below = np.minimum(source.astype(np.int64), old - 1)
    above = np.minimum(below + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = size
    fraction = (source - below).astype(real).reshape(shape)
    return jnp.take(x, below, axis=axis) * (1 - fraction) + jnp.take(x, above, axis=axis) * fraction
