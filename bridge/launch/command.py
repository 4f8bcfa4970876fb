"""``pirl-launch --config_path=cfg.json``: a run's learner and actors, started and looked after."""

from __future__ import annotations

import signal
import sys
import time

from bridge.command.help import ASKS, head
from bridge.launch.board import Lines, Screen, board, while_someone_reads
from bridge.launch.cluster import processes_of
from bridge.launch.farewell import all_done
from bridge.launch.plan import Plan, prepare, updates_done
from bridge.launch.slot import Start
from bridge.launch.supervisor import Outcome, Supervisor
from pirl_jax.ending import SIGNALS, end_on_signal, in_one_line
from pirl_jax.run_folder.lock import occupied

_MORE = """\
  --actors=N      how many actors (short for --algorithm.launch.actors=N)
  --backend=ray   on the nodes of a Ray cluster (short for --algorithm.launch.backend=ray)
  --resume=auto   go on from <output_dir>/checkpoints/last if it is there, else begin
  --a.b=c         any setting of LeRobot's or of the recipe's, for learner and actors alike

Ctrl-C or SIGTERM once: the learner saves, and everything ends. Twice: everything ends at once. A terminal
that is closed, or a pipe whose reader ends, counts as once.
Ends with status 0 when the run is done, 1 when it has failed, and 128 and the signal's number (130, 143; 129
and 141 for the last two) when it was stopped and can go on."""


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if not arguments or set(ASKS) & set(arguments):
        print(f"{head('launch')}\n{_MORE}")
        return
    end_on_signal(": nothing was started, the same command begins")
    try:
        if (done := updates_done(arguments)) is not None:
            print(all_done(*done))
            return
        print(f"{time.strftime('%H:%M:%S')} reading the config, as LeRobot reads it", flush=True)
        plan = prepare(arguments)
        with (
            occupied(plan.folder),
            processes_of(plan, Lines().say) as start,
            in_one_line(plan.folder),
            board() as shown,
        ):
            outcome, told = _supervise(plan, shown, start)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if outcome.end == "failed":
        sys.exit(f"error: {outcome.line}")
    with while_someone_reads(lambda: None):
        print(outcome.line, flush=True)
    if outcome.end == "stopped":
        sys.exit(128 + (told[0] if told else signal.SIGTERM))  # none: someone told the learner itself


def _supervise(plan: Plan, shown: Screen | Lines, start: Start) -> tuple[Outcome, list[int]]:
    """Return how a launch has ended, and the signals that it was told to stop by."""
    told: list[int] = []

    def ask_to_stop(number: int, _: object = None) -> None:
        told.append(number)
        supervisor.ask_to_stop()

    def nobody_reads() -> None:
        if not told:
            ask_to_stop(signal.SIGPIPE)

    def say(line: str) -> None:
        with while_someone_reads(nobody_reads):
            shown.say(line)

    def show(looked_after: Supervisor) -> None:
        with while_someone_reads(nobody_reads):
            shown.show(looked_after)

    supervisor = Supervisor(plan, say, start)
    if plan.begun is not None:
        say(f"goes on from update {plan.begun} of {plan.updates}")
    for number in SIGNALS:
        signal.signal(number, ask_to_stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, ask_to_stop)
    return supervisor.run(show), told
