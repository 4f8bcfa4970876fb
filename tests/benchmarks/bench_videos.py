"""What films of training cost the learner. Run it as a script.

python tests/benchmarks/bench_videos.py [--blocks N]

The real loop with a toy for a policy, on episodes with pictures of LIBERO's size; eight updates with
films, at the default rate, and eight without in turn. A real update takes longer, with as many films.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import threading
import time
from pathlib import Path

import by_recipe
import numpy as np
from toy_run import FROZEN, critic, episode, fresh_state, toy_policy

from bridge.videos.film import write_film
from bridge.videos.recorder import FPS, Recorder, pictures
from pirl_jax.recipe import NoiseConfig, VideosConfig
from pirl_jax.rollout.episode import Episode

CHUNKS, VIEWS, SIZE, EPISODES, BLOCK = 27, 2, 256, 64, 8


def played() -> Episode:
    """Return an episode whose pictures a codec finds neither empty nor full of noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (CHUNKS + 1, VIEWS, 3, 16, 16), dtype=np.uint8)
    images = coarse.repeat(SIZE // 16, 3).repeat(SIZE // 16, 4)
    plain = episode(0, CHUNKS, terminated=True)
    observations = dataclasses.replace(plain.observations, images=images)
    return dataclasses.replace(plain, observations=observations)


def film_s(shown: Episode) -> float:
    """Return the CPU seconds of a film, and say how large it is."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        for _ in range(4):
            began = time.process_time()
            write_film(path, pictures(shown), FPS)
            seconds.append(time.process_time() - began)
        print(f"a film: {statistics.median(seconds[1:]):.2f} s of CPU, {path.stat().st_size / 1e3:.0f} kB")
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=6)
    options = parser.parse_args()
    shown = played()
    film_s(shown)
    settings = VideosConfig(every_episodes=EPISODES * BLOCK)
    recipe = by_recipe.make_recipe(
        noise=NoiseConfig(level=0.5), episodes_per_update=EPISODES, max_chunks=CHUNKS, max_staleness=0
    )
    numbers, published = iter(range(1 << 30)), [0]
    times: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, Recorder(settings, Path(folder)) as films:

        def without(timeout: float) -> Episode:
            return dataclasses.replace(
                shown, number=next(numbers), version=np.full(CHUNKS, published[-1], np.int64)
            )

        ways = {False: without, True: films.passing(without)}
        filmed = False
        updates = by_recipe.run(
            *(toy_policy(), critic, FROZEN, recipe, fresh_state(recipe)),
            total_steps=BLOCK * (options.blocks + 1),
            receive=lambda timeout: ways[filmed](timeout),
            publish=lambda version, behaviour: published.append(version),
            stop=threading.Event(),
        )
        for _ in range(BLOCK):  # compiles
            next(updates)
        for number in range(options.blocks):
            filmed = number % 2 == 0
            began = time.monotonic()
            for _ in range(BLOCK):
                next(updates)
            times[filmed].append((time.monotonic() - began) / BLOCK)
            while films._episodes.qsize() or list(Path(folder).glob("**/.partial-*")):
                time.sleep(0.1)  # what is left of films is not laid to the next block
        written = len(list(Path(folder).rglob("episode_*.mp4")))
    for name, filmed in (("with films", True), ("without", False)):
        said = ", ".join(f"{each:.2f}" for each in times[filmed])
        print(f"{name}: {statistics.median(times[filmed]):.2f} s an update ({said})")
    ratio = statistics.median(times[False]) / statistics.median(times[True])
    print(f"{written} films written; rate with films: {ratio:.1%} of that without")


if __name__ == "__main__":
    main()
