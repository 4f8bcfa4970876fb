"""A long run whose learner is restarted again and again: does anything grow? Run it as a script.

python tests/soak/restarts.py [--updates 2000] [--restart_every 100] [--folder DIR] [--output FILE]

A tiny policy and a synthetic actor. Every other restart is a SIGKILL, the others a SIGTERM, at which the
learner saves. With the same folder a run that was stopped goes on. Fails where resident memory or the run's
folder has grown by more than a hundredth: of the learner from the middle of a life to its end (median of its
lives), and of its lives' ends from the first half of lives to the second (medians); of the actors, which live
through it all, likewise from the second quarter of what was seen of them to the last; of the folder, the last
checkpoint and the number of files beside metrics and checkpoints, of which there are two and the best.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from played import Played, rss_mb
from result import write

GROWTH, KEPT = 0.01, 2


def kept(output_dir: Path) -> dict[str, int]:
    """Return how many checkpoints there are, the bytes of the last one, and the files beside them.

    Metrics and TensorBoard's events are left out.
    """
    folders = [path for path in (output_dir / "checkpoints").iterdir() if path.name.isdigit()]
    last = (output_dir / "checkpoints/last").resolve()
    beside = [
        file
        for file in output_dir.rglob("*")
        if file.is_file() and not {"checkpoints", "tensorboard", "metrics.jsonl"} & set(file.parts)
    ]
    return {
        "checkpoints": len(folders),
        "checkpoint_bytes": sum(file.stat().st_size for file in last.rglob("*") if file.is_file()),
        "files_beside": len(beside),
    }


def live(run: Played, goal: int) -> dict[str, Any]:
    """Have one learner work until so many updates are done; return what it and the actors held after each."""
    learner, actors, done = [], [], len(run.rows())
    while done < goal:
        run.until(lambda known=done: len(run.rows()) > known)
        done = len(run.rows())
        if run.learner.poll() is None:
            learner.append(round(rss_mb(run.learner.pid), 2))
        actors.append(round(rss_mb(run.actors.pid), 2))
    return {"by": os.getpid(), "updates": done, "learner_mb": learner, "actors_mb": actors}


def lives(run: Played, history: Path, updates: int, every: int) -> list[dict[str, Any]]:
    """Go from life to life to the last update; return all of them, those of an earlier start too."""
    known = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    done = len(run.rows())
    while done < updates:
        life = live(run, min((done // every + 1) * every, updates))
        end = "finished"
        if life["updates"] < updates:
            end = ("SIGKILL", "SIGTERM")[len(known) % 2]
            run.learner.send_signal(signal.Signals[end])
        run.learner.wait()
        known.append({**life, "end": end, **kept(run.folder / "output")})
        with history.open("a") as file:
            file.write(json.dumps(known[-1]) + "\n")
        held = f"learner {life['learner_mb'][-1]:.0f} MiB, actors {life['actors_mb'][-1]:.0f}"
        checkpoint = (
            f"{known[-1]['checkpoints']} checkpoints, the last of {known[-1]['checkpoint_bytes']} bytes"
        )
        print(f"update {life['updates']}: {held}, {checkpoint}, {end}", flush=True)
        done = life["updates"]
        if done < updates:
            run.resume()
    return known


def grown(known: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return by how much what was held has grown, and by how much it may have."""
    ends = [life["learner_mb"][-1] for life in known]
    half = len(ends) // 2
    newest = [held for life in known if life["by"] == known[-1]["by"] for held in life["actors_mb"]]
    quarter = len(newest) // 4
    early, last = known[min(1, len(known) - 1)], known[-1]
    growth = {
        "learner, within a life": median(
            life["learner_mb"][-1] / life["learner_mb"][len(life["learner_mb"]) // 2] - 1 for life in known
        ),
        "learner, from life to life": median(ends[half:]) / median(ends[:half] or ends) - 1,
        "actors": median(newest[-quarter:]) / median(newest[quarter : 2 * quarter]) - 1,
        "a checkpoint's bytes": last["checkpoint_bytes"] / early["checkpoint_bytes"] - 1,
        "files beside": last["files_beside"] / early["files_beside"] - 1,
    }
    most = max(life["checkpoints"] for life in known)
    return {
        "checkpoints": (most, KEPT + 1),
        **{f"growth of {name}": (share, GROWTH) for name, share in growth.items()},
    }


def main() -> None:
    """Run it, write down what was measured, and fail where something has grown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--restart_every", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None, help="of the run; else one that goes at the end")
    parser.add_argument("--output", type=Path, default=Path("outputs/soak/restarts.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "run"
        folder.mkdir(parents=True, exist_ok=True)
        with Played(
            folder,
            actors=1,
            updates=options.updates,
            save_freq=max(1, options.restart_every // 4),
            checkpoint={"keep_last": KEPT},
        ) as run:
            known = lives(run, folder / "history.jsonl", options.updates, options.restart_every)
            steps = [row["step"] for row in run.rows()]
    missing = len(set(range(1, options.updates + 1)) ^ set(steps)) + len(steps) - len(set(steps))
    bounds = {"updates that are missing, or there twice": (missing, 0), **grown(known)}
    figures = {"updates": options.updates, "restarts": len(known) - 1, "lives": [brief(one) for one in known]}
    if not write(options.output, figures, bounds):
        raise SystemExit(1)


def brief(life: dict[str, Any]) -> dict[str, Any]:
    """Return a life without all but three of its measurements."""
    short = {name: value for name, value in life.items() if name != "by"}
    for who in ("learner_mb", "actors_mb"):
        held = life[who]
        short[who] = [held[0], held[len(held) // 2], held[-1]]
    return short


if __name__ == "__main__":
    main()
