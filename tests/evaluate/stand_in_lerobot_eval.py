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
for _ in task_ids:
    for done in range(n + 1):
        bar = f"\rStepping through eval batches:  50%|██  | {done}/{n} [00:20<00:20, 20.82s/it, rate=0.0%]"
        print(bar, end="", file=sys.stderr, flush=True)
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
successes = [i % 2 == 0 for i in range(n - (behaviour == "lie"))]
info = [
    {"task_group": suite, "task_id": task_id, "metrics": {"successes": successes}} for task_id in task_ids
]
Path(arguments["output_dir"], "eval_info.json").write_text(json.dumps({"per_task": info}))
