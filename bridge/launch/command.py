"""``pirl-launch --config_path=cfg.json``: a run's learner and actors, started and looked after.

  --actors=N      how many actors (short for --algorithm.launch.actors=N)
  --resume=auto   go on from <output_dir>/checkpoints/last if it is there, else begin
  --a.b=c         any setting of LeRobot's or of the recipe's, for learner and actors alike

Ctrl-C or SIGTERM once: the learner saves, and everything ends. Twice: everything ends at once.
Ends with status 0 when the run is done, 1 when it has failed, and 128 and the signal's number (130, 143)
when it was stopped and can go on.
"""

from __future__ import annotations

import signal
import sys

from bridge.launch.board import board
from bridge.launch.farewell import all_done
from bridge.launch.plan import prepare, updates_done
from bridge.launch.supervisor import Supervisor
from pirl_jax.ending import SIGNALS, end_on_signal, in_one_line


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    end_on_signal(": nothing was started, the same command begins")
    try:
        if (done := updates_done(arguments)) is not None:
            print(all_done(*done))
            return
        plan = prepare(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    told: list[int] = []
    with in_one_line(plan.folder), board() as shown:
        if plan.begun is not None:
            shown.say(f"goes on from update {plan.begun} of {plan.updates}")
        supervisor = Supervisor(plan, shown.say)

        def ask_to_stop(number: int, _: object) -> None:
            told.append(number)
            supervisor.ask_to_stop()

        for number in SIGNALS:
            signal.signal(number, ask_to_stop)
        outcome = supervisor.run(shown.show)
    if outcome.end == "failed":
        sys.exit(f"error: {outcome.line}")
    print(outcome.line)
    if outcome.end == "stopped":
        sys.exit(128 + (told[0] if told else signal.SIGTERM))  # none: someone told the learner itself
