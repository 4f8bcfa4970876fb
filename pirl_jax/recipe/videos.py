"""``algorithm.videos``: which training episodes a run keeps as films."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_jax.recipe import ranges


@dataclass
class VideosConfig:
    """Films are made of what the learner receives anyway: one picture a chunk, of every camera."""

    every_episodes: int = 500
    """A few episodes are filmed out of so many; 0: none ever."""
    episodes: int = 4
    """How many, in a row: by their numbers, not by how they end."""
    keep: int = 40
    """Films that stay in the run's folder, the newest."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: naming the field, what it must be and what was found.
        """
        ranges.check("videos", self)
        if 0 < self.every_episodes < self.episodes:
            raise ValueError(
                f"algorithm.videos.episodes must be at most videos.every_episodes={self.every_episodes}; "
                f"got {self.episodes}."
            )
