"""A small X-VLA and random frames for its supervised training."""

import itertools

import numpy as np

from pirl_jax.supervised.frames import Frames
from pirl_jax.xvla.config import TextConfig, VisionConfig, XVLAConfig

CONFIG = XVLAConfig(
    vision=VisionConfig(
        depths=(1,),
        patch_size=(7,),
        patch_stride=(8,),
        patch_padding=(3,),
        patch_prenorm=(False,),
        embed_dim=(16,),
        num_heads=(2,),
        num_groups=(2,),
        window_size=2,
        projection_dim=16,
        max_position_embeddings=8,
    ),
    text=TextConfig(
        vocab_size=16,
        max_position_embeddings=64,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
    ),
    chunk_size=4,
    n_action_steps=4,
    hidden_size=16,
    depth=1,
    num_heads=2,
    num_domains=2,
    len_soft_prompts=2,
    dim_time=8,
    max_len_seq=64,
    action_mode="auto",
    max_action_dim=3,
    max_state_dim=2,
    image_keys=("observation.images.front",),
)


BATCH = 16


def data(start=0):
    """Batches in which the state and the brightness of the image give the action."""
    for step in itertools.count(start):
        rng = np.random.default_rng(step)
        brightness = rng.integers(0, 256, BATCH)
        proprio = rng.uniform(-1, 1, (BATCH, 2)).astype(np.float32)
        target = np.stack([proprio[:, 0], proprio[:, 1], brightness / 128 - 1], axis=-1)
        yield Frames(
            images=np.broadcast_to(brightness[:, None, None, None, None], (BATCH, 1, 3, 16, 16)).astype(
                np.uint8
            ),
            tokens=np.tile(np.arange(4, dtype=np.int32), (BATCH, 1)),
            proprio=proprio,
            domain_id=rng.integers(0, 2, BATCH).astype(np.int32),
            action=np.repeat(target[:, None], 4, axis=1).astype(np.float32),
        )
