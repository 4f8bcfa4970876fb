"""Messages as the stock actor makes them, for tests."""

from __future__ import annotations

import numpy as np
import torch
from lerobot.transport.utils import transitions_to_bytes

from bridge.wire.record import Record, pack
from bridge.wire.spec import EpisodeSpec

SPEC = EpisodeSpec(
    image_keys=("observation.images.front", "observation.images.wrist"),
    image_shape=(3, 6, 5),
    num_tokens=4,
    proprio_dim=3,
    chunk_size=4,
    n_action_steps=3,
    env_action_dim=2,
    action_dim=5,
    num_latents=3,
    denoise_steps=(1, 2, 4),
    max_chunks=6,
)


def observation(rng: np.random.Generator, spec: EpisodeSpec = SPEC) -> dict[str, torch.Tensor]:
    shape = (1, *spec.image_shape)
    images = {key: torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)) for key in spec.image_keys}
    return images | {
        "observation.state": torch.from_numpy(rng.standard_normal((1, spec.proprio_dim), dtype=np.float32)),
        "observation.language.tokens": torch.from_numpy(rng.integers(0, 99, (1, spec.num_tokens))),
        "observation.domain_id": torch.tensor([3]),
    }


def record(rng: np.random.Generator, version: int = 7, spec: EpisodeSpec = SPEC, **episode: int) -> Record:
    dims = spec.record_dims
    return Record(
        env_action=rng.standard_normal((dims.n_action_steps, dims.env_action_dim), dtype=np.float32),
        latents=rng.standard_normal((dims.num_latents, dims.chunk_size, dims.action_dim), dtype=np.float32),
        log_prob=rng.standard_normal(dims.chunk_size, dtype=np.float32),
        version=version,
        **{"denoise_step": 1, **episode},
    )


def transitions(
    chunks: int = 3,
    *,
    seed: int = 0,
    version: int = 7,
    truncated: bool = False,
    episode_seed: int = 17 + (4 << 16),
    spec: EpisodeSpec = SPEC,
    **episode_of: int,
) -> list[dict]:
    """An episode whose last chunk ends after one step, with reward 1 there if it terminates."""
    rng = np.random.default_rng(seed)
    observations = [observation(rng, spec) for _ in range(chunks + 1)]
    halves = episode_seed & 0xFFFF, episode_seed >> 16
    episode = []
    for t in range(chunks):
        last = t == chunks - 1
        executed = 1 if last else spec.n_action_steps
        success = float(last and not truncated)
        rewards = [0.0] * (executed - 1) + [success]
        episode.append(
            {
                "state": observations[t],
                "action": torch.from_numpy(pack(record(rng, version, spec, **episode_of)))[None],
                "reward": sum(rewards),
                "next_state": observations[t + 1],
                "done": last and not truncated,
                "truncated": last and truncated,
                "complementary_info": {
                    "discrete_penalty": torch.tensor([[executed, success, *halves, 0, -1, *rewards]]),
                    "is_intervention": torch.tensor(False),
                },
            }
        )
    return episode


def message(chunks: int = 3, **kwargs) -> bytes:
    return transitions_to_bytes(transitions(chunks, **kwargs))
