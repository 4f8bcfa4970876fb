"""A million messages that were made to break their readers, each read twice. Run it as a script.

python tests/soak/fuzz.py [--messages=1000000] [--seed=0] [--output=FILE]

Episodes, parameter messages, JSON, questions to a policy server; the last two also sent to real ports. Each
is right, or almost, in what it says or in its bytes, and read by the project and by a second reader
(``tests/soak/fuzzed``). Fails where what the one accepts the other refuses or reads otherwise; where a
message that was written, not damaged, is refused though it is right; where anything but a refusal is raised;
where reading takes far more memory than the message: what torch reads of it, and the episode's own arrays,
are twice its length. With the same output it goes on where it was stopped; messages that were read wrongly
lie beside that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import resource
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import grpc  # noqa: E402
from fuzzed import Kind, UnfitError, memory, same  # noqa: E402
from fuzzed.episodes import Episodes  # noqa: E402
from fuzzed.pushes import Pushes  # noqa: E402
from fuzzed.questions import SPEC, AskedServer, Questions  # noqa: E402
from fuzzed.words import AskedLearner, Words  # noqa: E402
from result import write  # noqa: E402
from test_fuzzed import Policy  # noqa: E402

from bridge.trust.dialer import Dialer  # noqa: E402
from bridge.wire.act_service import ActService  # noqa: E402
from bridge.wire.policy_servers import PolicyServers  # noqa: E402
from bridge.wire.server import LearnerServer  # noqa: E402
from pirl_jax.rollout.assignments import Assignments  # noqa: E402
from pirl_jax.serving.batching import Batcher  # noqa: E402

SHARES = {"episode": 15, "push": 10, "words": 35, "asked learner": 10, "question": 25, "asked server": 5}
ACCEPTED, REFUSED = "accepted by both, equal", "refused by both"
STRICT = "damaged, refused by the first alone"
WRONG = {
    "accepted wrongly": "the second reader refuses it",
    "read wrongly": "the second reader reads something else",
    "refused wrongly": "the second reader accepts it, and its bytes are as they were written",
    "raised": "something else than a refusal was raised",
}
SAVE_EVERY = 2000
BESIDE, LONG_MESSAGES = 2.25, 100


@contextlib.contextmanager
def kinds() -> Iterator[dict[str, Kind]]:
    """Start a learner's port and a policy server's; give every kind of message."""
    learner = LearnerServer(
        "127.0.0.1",
        0,
        decode=lambda message: None,
        assignments=Assignments(4, seed=3),
        agreement={"noise": 1},
        policy_servers=PolicyServers({"noise": 1}),
    )
    policy: Any = Policy()
    policy.acting, policy.batcher = policy, Batcher(policy.answer, 2, 0.0)
    stopping, server = threading.Event(), grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((ActService(policy, SPEC, lambda: 7, stopping, 8).handler(),))
    port, dialer = server.add_insecure_port("127.0.0.1:0"), Dialer()
    server.start()
    with (
        learner,
        policy.batcher,
        dialer.open(f"127.0.0.1:{learner.port}") as asked,
        dialer.open(f"127.0.0.1:{port}") as served,
    ):
        yield {
            **{"episode": Episodes(), "push": Pushes(), "words": Words(), "question": Questions()},
            **{"asked learner": AskedLearner(asked), "asked server": AskedServer(served, policy.acts)},
        }
        stopping.set()
        server.stop(0.2).wait()


def outcome(kind: Kind, data: bytes, damaged: bool) -> tuple[str, str]:
    """Have a message read twice; return what came of it, and by what word it was refused."""
    word, read, reread, fits = "", None, None, True
    try:
        reread = kind.reread(data)
    except UnfitError:
        fits = False
    try:
        read = kind.read(data)
    except UnfitError as error:
        word = str(error)
        return (REFUSED if not fits else STRICT if damaged else "refused wrongly"), word
    except Exception:
        return "raised", traceback.format_exc()
    if not fits:
        return "accepted wrongly", ""
    return (ACCEPTED, "") if same(read, reread) else ("read wrongly", "")


def main() -> None:
    """Run it, write down what came of it, and fail where something was read wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/soak/fuzz.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's, of what is malformed
    logging.getLogger("bridge.wire").setLevel(logging.CRITICAL)
    beside = memory.beside(random.Random(options.seed), LONG_MESSAGES)
    state_file = options.output.with_suffix(".state.json")
    state: dict[str, Any] = {"seed": options.seed, "next": 0, "counts": {}, "reasons": {}, "seconds": 0.0}
    if state_file.exists():
        state = json.loads(state_file.read_text())
        if state["seed"] != options.seed:
            raise SystemExit(f"{state_file} is of seed {state['seed']}; give another --output.")
    state_file.parent.mkdir(parents=True, exist_ok=True)
    with kinds() as there:
        while state["next"] < options.messages:
            advance(there, state, min(SAVE_EVERY, options.messages - state["next"]), options.output)
            state_file.write_text(json.dumps(state))
            rate = state["next"] / state["seconds"]
            print(f"{state['next']} messages, {rate:.0f} a second, wrong: {wrong(state)}", flush=True)
    figures = {
        "seed": options.seed,
        "messages": state["next"],
        "outcomes": state["counts"],
        "refused_because": state["reasons"],
        "memory_beside_the_message": {"messages": len(beside), "median": sorted(beside)[len(beside) // 2]},
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": round(state["seconds"]),
    }
    found = wrong(state)
    bounds = {f"{name}: {what}": (found[name], 0) for name, what in WRONG.items()}
    if not write(options.output, figures, {**bounds, "memory, in messages": (max(beside), BESIDE)}):
        raise SystemExit(1)


def advance(there: dict[str, Kind], state: dict[str, Any], messages: int, output: Path) -> None:
    """Make and read so many more messages, and count what came of them."""
    started = time.monotonic()
    for index in range(state["next"], state["next"] + messages):
        rng = random.Random(f"{state['seed']}/{index}")
        (name,) = rng.choices(list(SHARES), list(SHARES.values()))
        made = there[name].make(rng)
        came, word = outcome(there[name], made.data, made.damaged)
        counts = state["counts"].setdefault(name, {})
        counts[came] = counts.get(came, 0) + 1
        if came in WRONG:
            keep(output, index, name, came, made, word)
        elif word:
            reasons = state["reasons"].setdefault(name, {})
            reasons[word] = reasons.get(word, 0) + 1
    state["next"] += messages
    state["seconds"] += time.monotonic() - started


def wrong(state: dict[str, Any]) -> dict[str, int]:
    """Return how many messages were read wrongly, in each way."""
    found: Counter[str] = Counter()
    for counts in state["counts"].values():
        found.update(counts)
    return {name: found[name] for name in WRONG}


def keep(output: Path, index: int, name: str, came: str, made: Any, word: str) -> None:
    """Write down a message that was read wrongly."""
    folder = output.with_suffix(".wrong")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{index}.bin").write_bytes(made.data)
    (folder / f"{index}.txt").write_text(f"{name}: {came}: {', '.join(made.done)}\n{word}")


if __name__ == "__main__":
    main()
