"""Random small X-VLA networks: any that LeRobot can run, with odd sizes and every switch."""

import random
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from quick import quick

ACTION_MODES = ("ee6d", "joint", "agibot_ee6d", "franka_joint7", "auto", "so101_bimanual")
TWO_QUICK = quick(ACTION_MODES, "ee6d", "auto")
"""For tests that take a minute a mode."""
ACTIVATIONS = (
    "gelu",
    "relu",
    "silu",
    "gelu_new",
    "quick_gelu",
    "tanh",
    "mish",
    "hardswish",
    "prelu",
    "xielu",
)
MIN_PROPRIO = {"ee6d": 20, "joint": 14, "so101_bimanual": 20}


@dataclass(frozen=True)
class Case:
    """A network and the shapes of what it is fed."""

    settings: dict[str, Any]
    """Arguments of LeRobot's XVLAConfig; features as ``{name: (kind, shape)}``."""
    batch: int
    num_tokens: int
    image_size: tuple[int, int]
    present: tuple[str, ...]
    """Cameras in the batch; the others are padded."""
    seed: int


def conv_size(length: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a strided convolution."""
    return (length + 2 * padding - kernel) // stride + 1


def cases(*modes: str) -> st.SearchStrategy[Case]:
    """Cases of some action modes, of all by default.

    Hypothesis draws the seed only: left to draw every size, it favours the smallest, and half of the networks
    have no layers.
    """
    return st.builds(random_case, st.sampled_from(modes or ACTION_MODES), st.integers(0, 2**32 - 1))


def random_case(mode: str, seed: int) -> Case:
    """Make up a case; sizes are tiny, so that each takes seconds, not minutes."""
    rng = random.Random(f"{mode} {seed}")
    between = rng.randint

    def pick(*values: Any) -> Any:
        return rng.choice(values)

    def flag() -> bool:
        return pick(False, True)

    image_size = (between(13, 40), between(13, 40))
    resize = pick(None, None, (between(12, 30), between(12, 30)))
    grid = list(resize or image_size)
    stages = pick(1, 2, 2, 3)
    vision: dict[str, Any] = {"patch_size": [], "patch_stride": [], "patch_padding": [], "patch_prenorm": []}
    heads, groups, widths = [], [], []
    for stage in range(stages):
        kernel, stride = pick(2, 3, 5, 7), pick(3, 4) if stage == 0 else pick(1, 2)
        padding = pick(0, 1, 3)
        if min(conv_size(side, kernel, stride, padding) for side in grid) < 1:
            kernel = 2 * padding + 1
        grid = [conv_size(side, kernel, stride, padding) for side in grid]
        for name, value in zip(vision, (kernel, stride, padding, flag())):
            vision[name].append(value)
        heads.append(pick(1, 2, 3))
        groups.append(pick(1, 2, 3))
        widths.append(heads[-1] * groups[-1] * pick(2, 4))
    width = 4 * pick(2, 3, 5)
    tokens = between(1, 9)
    vision |= {
        "depths": [pick(0, 1, 1, 2) for _ in range(stages)],
        "num_heads": heads,
        "num_groups": groups,
        "window_size": between(1, 7),
        "mlp_ratio": pick(1.0, 2.5),
        "qkv_bias": flag(),
        "activation_function": pick(*ACTIVATIONS),
        "projection_dim": width,
    }
    max_positions, max_frames = max(grid) + between(0, 2), between(1, 3)
    if flag():
        vision |= {"embed_dim": widths, "max_position_embeddings": max_positions}
        vision |= {"max_temporal_embeddings": max_frames}
    else:  # the Microsoft dialect of the published checkpoints
        vision |= {"dim_embed": widths, "model_type": "davit", "enable_checkpoint": False}
        vision |= {"image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": max_positions}}
        vision |= {"visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": max_frames}}
        vision |= {"image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"]}
    text = {
        "vocab_size": between(7, 20),
        "d_model": width,
        "encoder_layers": pick(0, 1, 1, 2),
        "encoder_ffn_dim": between(5, 24),
        "encoder_attention_heads": pick(1, 2, 4),
        "decoder_layers": 1,
        "decoder_ffn_dim": 4,
        "decoder_attention_heads": 1,
        "max_position_embeddings": grid[0] * grid[1] + 1 + tokens,
        "activation_function": pick(*ACTIVATIONS),
        "scale_embedding": flag(),
        "tie_word_embeddings": pick(True, True, False),
    }

    needed = MIN_PROPRIO.get(mode, 0)
    use_proprio = needed > 0 or flag()
    cameras = tuple(f"observation.images.{name}" for name in ("zenith", "arm", "left")[: between(1, 3)])
    empty = between(0, 2)
    declared = pick(None, between(1, 5))
    inputs = dict.fromkeys(cameras, ("VISUAL", (3, *image_size)))
    inputs["observation.state"] = ("STATE", (between(1, 22),))
    num_views = max(declared or 0, len(cameras) + empty)
    per_view, chunk = grid[0] * grid[1] + 1, between(1, 5)
    settings = {
        "input_features": inputs,
        "output_features": {"action": ("ACTION", (between(1, 12),))},
        "florence_config": {"vision_config": vision, "text_config": text},
        "chunk_size": chunk,
        "n_action_steps": between(1, chunk),
        "hidden_size": 4 * pick(2, 3),
        "num_heads": pick(1, 2, 4),
        "depth": pick(0, 1, 1, 2),
        "mlp_ratio": pick(1.0, 2.6),
        "num_domains": between(1, 4),
        "len_soft_prompts": pick(0, 1, 3),
        "dim_time": pick(2, 7, 8),
        "max_len_seq": chunk + num_views * per_view + tokens + between(0, 3),
        "use_hetero_proj": flag(),
        "action_mode": pick(mode, mode.upper()),
        "num_denoising_steps": between(1, 4),
        "use_proprio": use_proprio,
        "max_state_dim": 20 if mode == "so101_bimanual" else needed + between(0, 4),
        "max_action_dim": between(1, 10),
        "resize_imgs_with_padding": resize,
        "num_image_views": declared,
        "empty_cameras": empty,
    }
    return Case(
        settings=settings,
        batch=between(1, 3),
        num_tokens=tokens,
        image_size=image_size,
        present=cameras[: between(1, len(cameras))],
        seed=seed,
    )
