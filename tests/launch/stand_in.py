"""Stand-ins for learner and actor: processes that start at once and do as a test says.

``python -m stand_in ROLE BEHAVIOUR FOLDER OUTPUT_DIR``. A role that lives touches ``FOLDER/ROLE.beat``.
Behaviours: ``run`` until SIGTERM, at which the learner saves, ``slow``ly if it is to; ``exit STATUS WORDS``;
``finish`` after a moment, once so many others live; ``silent WORDS``, which says them and never comes to
life.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

BEAT_S = 0.02


def save(output_dir: Path, step: int) -> None:
    """Leave a checkpoint and a row of metrics, as far as the launch looks at them."""
    checkpoint = output_dir / "checkpoints" / f"{step:06}"
    (checkpoint / "training_state").mkdir(parents=True)
    (checkpoint / "pretrained_model").mkdir()
    (checkpoint / "training_state" / "training_step.json").write_text(json.dumps({"step": step}))
    (checkpoint / "pretrained_model" / "train_config.json").write_text("{}")
    last = output_dir / "checkpoints" / "last"
    last.unlink(missing_ok=True)
    last.symlink_to(checkpoint.name)


def stop(output_dir: Path, seconds: float) -> None:
    """Save, which takes so long, and end; a second signal ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(seconds)
    save(output_dir, 3)
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Behave."""
    role, behaviour, folder, output_dir = sys.argv[1:5]
    word, *rest = behaviour.split(maxsplit=2)
    if word == "exit":
        print(rest[1])
        sys.exit(int(rest[0]))
    if word == "silent":
        print(*rest, flush=True)
        time.sleep(600)
    if role == "learner":
        signal.signal(signal.SIGTERM, lambda *_: stop(Path(output_dir), 1.0 if word == "slow" else 0.0))
    started = time.monotonic()
    others = int(rest[0]) if word == "finish" and rest else 0
    while (
        word != "finish"
        or time.monotonic() - started < 0.5
        or len(list(Path(folder).glob("[0-9]*.beat"))) < others
    ):
        (Path(folder) / f"{role}.beat").write_text(str(os.getpid()))
        time.sleep(BEAT_S)
    save(Path(output_dir), 10)


if __name__ == "__main__":
    main()
