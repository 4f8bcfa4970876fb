"""Frames are prepared for the vision tower as LeRobot prepares them."""

import jax
import numpy as np
import pytest
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.common.vla_utils import pad_vector
from lerobot.policies.common.vla_utils import resize_with_pad as torch_resize_with_pad
from lerobot.policies.xvla.processor_xvla import XVLAImageNetNormalizeProcessorStep
from reference import FLOAT32_TOLERANCE, FLOAT64_TOLERANCE, assert_close, to_jax

from pirl_jax.xvla.actions import prepare_proprio
from pirl_jax.xvla.images import normalize_images, resize_with_pad

SIZES = [(30, 41), (41, 30), (64, 64), (12, 17), (21, 33), (480, 640)]
TARGETS = [(21, 33), (33, 20), (224, 224)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
def test_resize_with_pad_equals_lerobot(size: tuple[int, int], target: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size).double()
    for tolerance, reference in ((FLOAT64_TOLERANCE, images), (FLOAT32_TOLERANCE, images.float())):
        expected = torch_resize_with_pad(reference, *target, pad_value=0.0)
        with jax.enable_x64(reference.dtype == torch.float64):
            assert_close("image", resize_with_pad(to_jax(reference), *target), expected, tolerance)


def test_normalisation_of_bytes_equals_lerobots_processor() -> None:
    images = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8)
    observation = {"observation.images.a": images.float() / 255}
    processed = XVLAImageNetNormalizeProcessorStep()({TransitionKey.OBSERVATION: observation})
    expected = processed[TransitionKey.OBSERVATION]["observation.images.a"]
    assert_close("image", normalize_images(to_jax(images)), expected, 1e-6)


@pytest.mark.parametrize("dim", [0, 3, 5, 9])
def test_proprioception_is_cut_or_padded_as_lerobot_does(dim: int) -> None:
    state = torch.randn(2, 5)
    expected = pad_vector(state, dim, truncate=True)
    np.testing.assert_array_equal(prepare_proprio(state.numpy(), dim), expected.numpy())
