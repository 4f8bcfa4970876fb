"""Laying an update's episodes out as rows: ours over torch's usual way. Run it as a script.

python tests/benchmarks/bench_batch.py [--rounds N]

Torch's usual way is a list of steps for each episode, concatenated, padded to the longest episode that
may come, stacked, and copied to where the learner reads it. Ours leaves features where they are, and copies
those of a minibatch when it is that one's turn; "and every minibatch" is with these copies, of one epoch.
Advantages are in both, the critic in neither. Features have published sizes; CPU seconds, one pinned core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import timing

timing.pin()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from equal_learners import recipe  # noqa: E402

from pirl_jax.rollout.scoring import ScoredEpisode  # noqa: E402
from pirl_jax.rows import cut  # noqa: E402
from pirl_jax.update.estimate import make_batch  # noqa: E402
from pirl_jax.xvla.model import XVLAFeatures  # noqa: E402

EPISODES, CHUNKS, MINIBATCH = 16, 16, 32
IMAGE_TOKENS, TEXT_TOKENS, WIDTH, H, A, P = 50, 50, 1024, 30, 20, 20
GOAL = 0.15


def played(length: int, rng: np.random.Generator) -> ScoredEpisode:
    """Return an episode of random numbers."""

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    T = length
    features = XVLAFeatures(
        random(T + 1, IMAGE_TOKENS + TEXT_TOKENS, WIDTH), random(T + 1, 2 * IMAGE_TOKENS, WIDTH)
    )
    return ScoredEpisode(
        features=features,
        proprio=random(T + 1, P),
        domain_id=np.zeros(T + 1, np.int32),
        latents=random(T, 3, H, A),
        denoise_step=np.ones(T, np.int32),
        executed=np.full(T, H),
        step_mask=np.ones((T, H), bool),
        old_log_prob=random(T, H),
        actor_log_prob=random(T, H),
        level=np.full(T, 0.1, np.float32),
        reward=random(T),
        terminated=bool(length % 2),
        success=True,
    )


def steps_of(episode: ScoredEpisode) -> list[dict[str, torch.Tensor]]:
    """Return an episode as a torch collector has it: a dict of tensors for each step."""
    names = ("latents", "step_mask", "old_log_prob", "reward")
    arrays = {name: getattr(episode, name) for name in names} | {
        "vlm": episode.features.vlm,
        "aux": episode.features.aux,
        "proprio": episode.proprio,
        "domain_id": episode.domain_id,
    }
    return [{name: torch.from_numpy(x[t : t + 1]) for name, x in arrays.items()} for t in range(len(episode))]


def usual(episodes: list[list[dict[str, torch.Tensor]]]) -> dict[str, torch.Tensor]:
    """Concatenate each episode's steps, pad, stack, estimate advantages, and copy the rows that count."""
    padded: dict[str, list[torch.Tensor]] = {}
    for steps in episodes:
        for name in steps[0]:
            x = torch.cat([step[name] for step in steps])
            missing = CHUNKS - len(x)
            padded.setdefault(name, []).append(torch.cat([x, x.new_zeros((missing, *x.shape[1:]))]))
    stacked = {name: torch.stack(parts) for name, parts in padded.items()}
    valid = torch.arange(CHUNKS) < torch.tensor([[len(steps)] for steps in episodes])
    advantages, running = torch.zeros(len(episodes), CHUNKS), torch.zeros(len(episodes))
    for t in reversed(range(CHUNKS)):
        running = torch.where(valid[:, t], stacked["reward"][:, t] + 0.99 * 0.95 * running, 0.0)
        advantages[:, t] = running
    chosen = advantages[valid]
    advantages = (advantages - chosen.mean()) / chosen.std().clamp(min=1e-3)
    return {name: x[valid].contiguous() for name, x in {**stacked, "advantages": advantages}.items()}


def main() -> None:
    """Print two rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    episodes = [played(int(rng.integers(CHUNKS // 2, CHUNKS + 1)), rng) for _ in range(EPISODES)]
    theirs = [steps_of(episode) for episode in episodes]
    settings = recipe(EPISODES, CHUNKS, MINIBATCH)

    def no_critic(state: Any, observed: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(observed.proprio), 1), np.float32), np.zeros(len(observed.proprio), np.float32)

    def ours() -> tuple[Any, int]:
        sections = settings.rollout, settings.advantage, settings.objective
        nothing: Any = None
        return make_batch(episodes, *sections, no_critic, nothing)

    def ours_cut() -> None:
        batch, count = ours()
        order = rng.permutation(count)
        for start in range(0, count, MINIBATCH):
            cut(batch, order[start : start + MINIBATCH])

    def usual_taken() -> None:
        rows = usual(theirs)
        order = torch.from_numpy(rng.permutation(len(rows["advantages"])))
        for start in range(0, len(order), MINIBATCH):
            {name: x[order[start : start + MINIBATCH]] for name, x in rows.items()}

    print(timing.header(("what", "ours (s)", "torch (s)", "÷ torch", "goal")))
    batch, count = ours()
    rows = usual(theirs)
    np.testing.assert_allclose(batch.advantages[:count], rows["advantages"], rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(batch.features.vlm[np.arange(count)], rows["vlm"])
    del rows
    for what, mine, other, goal in (
        ("assembly", ours, lambda: usual(theirs), GOAL),
        ("assembly and every minibatch", ours_cut, usual_taken, None),
    ):
        a, b = timing.alternately({"ours": mine, "theirs": other}, rounds).values()
        print(timing.row(what, a, b, timing.ratio(a, b), goal), flush=True)


if __name__ == "__main__":
    main()
