"""How good an exported policy is, measured with nothing of ours in the loop but the environment.

Stock ``XVLAPolicy``, stock zero-noise sampler, the processors of the export itself, one image a chunk.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bridge.demo.record import IMAGE_KEY, environment
from bridge.processes import pool
from pirl_jax.console.progress import Progress
from pirl_jax.training.interval import wilson

_SHARE = 5  # episodes a worker plays before it reports
_FRAMES_PER_SECOND = 10  # of simulated time, hence real time
_STILL_FRAMES = 10  # of each episode's end
_BORDER = 6  # pixels
_GREEN, _RED = (60, 180, 75), (215, 60, 60)


@dataclass(frozen=True)
class PlayedEpisode:
    """One evaluated episode."""

    seed: int
    success: bool
    length: int
    """Control steps."""
    reward: float
    """Summed, undiscounted."""


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy, in the order of their seeds."""

    episodes: tuple[PlayedEpisode, ...]
    seconds: float
    """Wall time."""

    @property
    def successes(self) -> list[bool]:
        """Of each episode."""
        return [episode.success for episode in self.episodes]

    @property
    def success(self) -> float:
        """Share of successful episodes."""
        return sum(self.successes) / len(self.episodes)

    def summary(self) -> dict[str, Any]:
        """``{"success", "n", "ci95", "mean_length", "seconds"}`` with Wilson's interval."""
        n = len(self.episodes)
        return {
            "success": self.success,
            "n": n,
            "ci95": list(wilson(sum(self.successes), n)),
            "mean_length": sum(episode.length for episode in self.episodes) / n,
            "seconds": round(self.seconds, 1),
        }


class Evaluator:
    """Owns the processes that evaluate, so that many checkpoints can be measured without starting them again.

    Args:
        workers: Processes, one torch thread each; 0 evaluates in this one.
    """

    def __init__(self, workers: int = 2):
        self._pool = pool(workers) if workers else None

    def __call__(self, pretrained: Path | str, seeds: Sequence[int], noise_seed: int = 0) -> Evaluation:
        """Play one episode a seed with a policy folder (``pretrained_model/``).

        Args:
            pretrained: A LeRobot policy folder with its processors.
            seeds: Of the episodes.
            noise_seed: Decides, with an episode's seed, the noise that its chunks are denoised from.

        Raises:
            ValueError: There are no seeds.
        """
        if not seeds:
            raise ValueError("an evaluation needs at least one seed.")
        start = time.monotonic()
        shares = [list(seeds[i : i + _SHARE]) for i in range(0, len(seeds), _SHARE)]
        play = partial(_play_share, str(pretrained), _stamp(pretrained), noise_seed)
        results: Iterator[list[PlayedEpisode]] = (
            self._pool.imap(play, shares) if self._pool else map(play, shares)
        )
        episodes: list[PlayedEpisode] = []
        with Progress("evaluating", len(seeds), "episodes") as progress:
            for share in results:
                episodes += share
                won = sum(episode.success for episode in episodes)
                progress.at(len(episodes), f"{won} successful")
        return Evaluation(tuple(episodes), time.monotonic() - start)

    def close(self) -> None:
        """End the processes."""
        if self._pool:
            self._pool.terminate()
            self._pool.join()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def evaluate(
    pretrained: Path | str, seeds: Sequence[int], workers: int = 2, noise_seed: int = 0
) -> Evaluation:
    """Evaluate one policy folder once; see ``Evaluator``. For tests, which measure single policies."""
    with Evaluator(workers) as evaluator:
        return evaluator(pretrained, seeds, noise_seed)


def record_video(
    pretrained: Path | str,
    seeds: Sequence[int],
    path: Path | str,
    columns: int = 3,
    size: int = 256,
    noise_seed: int = 0,
) -> Evaluation:
    """Write an mp4 mosaic of episodes played side by side; each ends in a green (success) or red frame.

    Args:
        pretrained: As for ``Evaluator``.
        seeds: One a tile.
        path: The ``.mp4`` file.
        columns: Tiles in a row.
        size: Height and width of a tile in pixels, a multiple of 16.
        noise_seed: As for ``Evaluator``.
    """
    import imageio.v2 as imageio

    start = time.monotonic()
    player = _player(str(pretrained), _stamp(pretrained))
    draw = _camera(player.env, size)
    episodes, tiles = [], []
    for seed in seeds:
        frames: list[np.ndarray] = []
        episodes.append(player.play(seed, noise_seed, lambda frames=frames: frames.append(draw())))
        colour = _GREEN if episodes[-1].success else _RED
        tiles.append([*frames, *[_framed(frames[-1], colour)] * _STILL_FRAMES])
    length = max(len(tile) for tile in tiles)
    rows = -(-len(tiles) // columns)
    writer: Any = imageio.get_writer(path, fps=_FRAMES_PER_SECOND, codec="libx264", quality=8)
    with writer:
        for index in range(length):
            mosaic = np.zeros((rows, columns, size, size, 3), np.uint8)
            for tile, frames in enumerate(tiles):
                mosaic[divmod(tile, columns)] = frames[min(index, len(frames) - 1)]
            writer.append_data(mosaic.swapaxes(1, 2).reshape(rows * size, columns * size, 3))
    return Evaluation(tuple(episodes), time.monotonic() - start)


class _Player:
    """A policy, its processors and an environment in this process."""

    def __init__(self, pretrained: str):
        import torch
        from lerobot.policies.factory import make_pre_post_processors
        from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

        torch.set_num_threads(1)  # the other cores evaluate too
        self.policy = XVLAPolicy.from_pretrained(pretrained)
        config: Any = self.policy.config
        self._n_action_steps = config.n_action_steps
        self._pre, self._post = make_pre_post_processors(self.policy.config, pretrained_path=pretrained)
        self.env = environment(self.policy.config.image_features[IMAGE_KEY].shape[-1])

    def play(
        self, seed: int, noise_seed: int, after_step: Callable[[], None] = lambda: None
    ) -> PlayedEpisode:
        """Play one episode. ``after_step`` is called after the reset and after each action."""
        import torch

        self.policy.reset()
        # The stock sampler draws its noise from torch's global generator.
        torch.manual_seed(int(np.random.SeedSequence((noise_seed, seed)).generate_state(1)[0]))
        self.env.set_rendering(False)
        _, info = self.env.reset(seed=seed)
        after_step()
        step, total, over = 0, 0.0, False
        batch: dict[str, Any] = {}
        while not over:
            if step % self._n_action_steps == 0:
                batch = self._pre(self._observe())
            # Between decisions the stock policy only hands out its queue.
            action = self._post(self.policy.select_action(batch))
            _, reward, terminated, truncated, info = self.env.step(action[0].numpy())
            after_step()
            step, total, over = step + 1, total + reward, terminated or truncated
        return PlayedEpisode(seed=seed, success=bool(info["is_success"]), length=step, reward=total)

    def _observe(self) -> dict[str, Any]:
        from lerobot.envs.utils import preprocess_observation

        from bridge.plugin.panda import INSTRUCTION

        observation = self.env.observe()
        batched = {
            "pixels": {"front": observation["pixels"]["front"][None]},
            "agent_pos": observation["agent_pos"][None],
        }
        return {**preprocess_observation(batched), "task": [INSTRUCTION]}


def _play_share(pretrained: str, stamp: int, noise_seed: int, seeds: list[int]) -> list[PlayedEpisode]:
    player = _player(pretrained, stamp)
    return [player.play(seed, noise_seed) for seed in seeds]


@lru_cache(maxsize=1)
def _player(pretrained: str, stamp: int) -> _Player:
    """Return this process's player; ``stamp`` makes it anew when the folder's weights have changed."""
    return _Player(pretrained)


def _stamp(pretrained: Path | str) -> int:
    return (Path(pretrained) / "model.safetensors").stat().st_mtime_ns


@lru_cache  # never freed: see ``environment``
def _camera(env: Any, size: int) -> Callable[[], np.ndarray]:
    """Return a function that draws the scene in detail, uint8 [size, size, 3]."""
    import mujoco

    view = env.model.vis
    view.global_.offwidth = view.global_.offheight = size
    view.quality.offsamples = 4
    renderer = mujoco.Renderer(env.model, size, size)
    atexit.register(renderer.close)  # before EGL's own end: a renderer that outlives it prints errors

    def draw() -> np.ndarray:
        renderer.update_scene(env.data, camera="front")
        return renderer.render().copy()

    return draw


def _framed(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    framed = np.empty_like(image)
    framed[:] = colour
    framed[_BORDER:-_BORDER, _BORDER:-_BORDER] = image[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return framed
