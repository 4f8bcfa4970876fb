"""Behaves as ``lerobot-eval`` does towards whoever started it, without a policy or a simulator.

For what the real one cannot be brought to do on demand. ``STAND_IN`` tells it what to do: ``fail`` (after a
traceback; ``fail 2``: on task 2 alone), ``wait`` (forever, printing progress), ``lie`` (report one episode
too few); else it succeeds.
"""

import json
import os
import sys
import time
from pathlib import Path

arguments = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
behaviour, _, which = os.environ.get("STAND_IN", "").partition(" ")
n = int(arguments["eval.n_episodes"])
suite, task_ids = arguments["env.task"], json.loads(arguments["env.task_ids"])
print("INFO Making policy.", flush=True)
successes = [i % 2 == 0 for i in range(n - (behaviour == "lie"))]


def show(done: int, episodes: int) -> str:
    """Print the bar of so many batches, with the rate of so many: it is told before the batch is counted."""
    rate = f", running_success_rate={100 * sum(successes[:episodes]) / episodes:.1f}%" if episodes else ""
    bar = f"\rStepping through eval batches:  50%|██  | {done}/{n} [00:20<00:20, 20.82s/it{rate}]"
    print(bar, end="", file=sys.stderr, flush=True)
    return bar


for _ in task_ids:
    bar = show(0, 0)
    for done in range(n):
        show(done, done + 1)
        bar = show(done + 1, done + 1)
        print(
            "\rRunning rollout with at most 3 steps:  33%|█ | 1/3 [00:00<00:00]\x1b[A",
            end="",
            file=sys.stderr,
        )
    if behaviour == "wait":
        while True:
            print(bar, end="", file=sys.stderr, flush=True)
            time.sleep(0.05)
if behaviour == "fail" and (not which or int(which) in task_ids):
    raise ValueError("the simulator is on fire")
info = [
    {"task_group": suite, "task_id": task_id, "metrics": {"successes": successes}} for task_id in task_ids
]
Path(arguments["output_dir"], "eval_info.json").write_text(json.dumps({"per_task": info}))
