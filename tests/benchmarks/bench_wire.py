"""What a learner's end of the wire costs: reading an episode, and taking many in. Run it as a script.

python tests/benchmarks/bench_wire.py [rounds]

"read" is the CPU time from a message's bytes to an episode of 6 chunks with two cameras of 256 x 256 (a
LIBERO episode). "taken in" is how many small episodes a second pass from four streams of LeRobot's through
gRPC, reading, assignment and queue, everything in this one process.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "wire")]

from episodes import SPEC, message  # noqa: E402
from lerobot.transport import services_pb2, services_pb2_grpc  # noqa: E402
from lerobot.transport.utils import grpc_channel_options, send_bytes_in_chunks  # noqa: E402

from bridge.wire.decode import decode_episode  # noqa: E402
from bridge.wire.server import LearnerServer  # noqa: E402
from pirl_jax.rollout.assignments import Assignments  # noqa: E402

LIBERO = replace(
    SPEC, image_shape=(3, 256, 256), num_tokens=50, chunk_size=30, n_action_steps=10, max_chunks=30
)
STREAMS, EPISODES = 4, 200


def read(data: bytes, count: int = 20) -> float:
    """Return milliseconds of CPU time to read the message."""
    started = time.process_time()
    for _ in range(count):
        decode_episode(data, LIBERO)
    return 1000 * (time.process_time() - started) / count


def chunks(messages: list[bytes]) -> Iterator:
    """Yield what one stream carries."""
    for data in messages:
        yield from send_bytes_in_chunks(data, services_pb2.Transition)


def taken_in() -> float:
    """Return episodes a second."""
    assignments = Assignments(EPISODES, 0)
    assignments.publish(1, 0)
    with (
        LearnerServer(
            "127.0.0.1", 0, decode=partial(decode_episode, spec=SPEC), assignments=assignments, agreement={}
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", grpc_channel_options()) as channel,
    ):
        given = [assignments.next("bench", 1.0) for _ in range(EPISODES)]
        messages = [
            message(3, version=1, episode_seed=a.seed, number=a.number, run=server.run) for a in given if a
        ]
        stub = services_pb2_grpc.LearnerServiceStub(channel)
        started = time.perf_counter()
        with ThreadPoolExecutor(STREAMS) as senders:
            for i in range(STREAMS):
                senders.submit(stub.SendTransitions, chunks(messages[i::STREAMS]))
            for _ in range(EPISODES):
                if server.get(timeout=60) is None:
                    raise RuntimeError(f"episodes are missing: {server.stats()}")
        return EPISODES / (time.perf_counter() - started)


def main() -> None:
    """Print the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    data = message(6, spec=LIBERO)
    times = [(read(data), taken_in()) for _ in range(rounds)]
    print(f"read: {statistics.median(t for t, _ in times):.2f} ms of CPU for {len(data) / 2**20:.1f} MiB")
    print(f"taken in: {statistics.median(n for _, n in times):.0f} episodes a second")


if __name__ == "__main__":
    main()
