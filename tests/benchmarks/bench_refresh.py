"""A refresh of the head through the plugin, over LeRobot's own float32 state dict. Run it as a script.

python tests/benchmarks/bench_refresh.py [tiny|quarter|half|published …] [--rounds N] [--dtype bfloat16]

From the learner's tensors to the actor's policy, both over gRPC's loopback into the same ``XVLAPolicy``, in
turn in one run; wall seconds, medians. Ours: ``LearnerServer.publish``, the plugin's channel, and
``PiRLAlgorithm.load_weights``, which checks every tensor. LeRobot's: ``state_to_bytes``, its
``LearnerService``, ``receive_bytes_in_chunks``, the queues that its learner and actor have,
``bytes_to_state_dict``, ``load_state_dict``. ``quarter`` and ``half`` have that part of the published layers,
of head and encoder alike. LeRobot's way holds about six copies of the state dict: ``published`` takes 20 GiB.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "benchmarks")]

import grpc  # noqa: E402
import timing  # noqa: E402
import torch  # noqa: E402
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy  # noqa: E402
from lerobot.rl.learner_service import LearnerService  # noqa: E402
from lerobot.transport import services_pb2, services_pb2_grpc  # noqa: E402
from lerobot.transport.utils import (  # noqa: E402
    bytes_to_state_dict,
    grpc_channel_options,
    receive_bytes_in_chunks,
    state_to_bytes,
)
from published import PARTS, part_of_published  # noqa: E402
from torch.multiprocessing import Queue  # noqa: E402

from bridge import plugin  # noqa: E402
from bridge.plugin.transport import LearnerChannel, open_channel  # noqa: E402
from bridge.wire.server import LearnerServer  # noqa: E402
from pirl_jax.rollout.assignments import Assignments  # noqa: E402

GOAL = 1 / 6


def algorithm_of(policy: XVLAPolicy) -> Any:
    """Return the plugin's algorithm around a policy, as LeRobot's actor makes it."""
    from bridge.plugin.algorithm import PiRLAlgorithm
    from bridge.plugin.recipe_config import PiRLConfig

    config = PiRLConfig()
    config.policy_config = policy.config
    return PiRLAlgorithm(policy, config)


@contextmanager
def our_way(policy: XVLAPolicy, dtype: torch.dtype) -> Iterator[Callable[[], None]]:
    """Yield a refresh of the head through learner's server, plugin's channel and algorithm."""
    algorithm, version, stop = algorithm_of(policy), iter(range(1, 1000)), threading.Event()
    prefix = "model.transformer."
    head = {key: x.clone() for key, x in policy.state_dict().items() if key.startswith(prefix)}
    assignments = Assignments(1, 0)
    with LearnerServer(
        "127.0.0.1", 0, decode=lambda message: None, assignments=assignments, agreement={}
    ) as server:
        channel = LearnerChannel(open_channel(f"127.0.0.1:{server.port}", grpc_channel_options()), stop)
        stub = services_pb2_grpc.LearnerServiceStub(channel)

        def receive() -> None:
            stream = stub.StreamParameters(services_pb2.Empty())
            receive_bytes_in_chunks(stream, None, stop)

        threading.Thread(target=receive, daemon=True).start()

        def refresh() -> None:
            number = next(version)
            server.publish(number, 0.1, {key: x.to(dtype) for key, x in head.items()})
            while algorithm.acting.version < number:
                message = channel.parameters.take(60)
                if message is None:
                    raise RuntimeError("the push did not arrive")
                algorithm.load_weights(bytes_to_state_dict(message))

        yield refresh
        stop.set()


@contextmanager
def their_way(policy: XVLAPolicy) -> Iterator[Callable[[], None]]:
    """Yield a refresh of everything through LeRobot's own functions, service and queues."""
    stop, sent, received = threading.Event(), Queue(), Queue()
    service = LearnerService(stop, sent, 0, Queue(), Queue(), queue_get_timeout=0.01)
    server = grpc.server(ThreadPoolExecutor(3), options=grpc_channel_options())
    services_pb2_grpc.add_LearnerServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", grpc_channel_options()) as channel:
        stub = services_pb2_grpc.LearnerServiceStub(channel)

        def receive() -> None:
            try:
                receive_bytes_in_chunks(stub.StreamParameters(services_pb2.Empty()), received, stop)
            except grpc.RpcError:
                if not stop.is_set():
                    raise

        threading.Thread(target=receive, daemon=True).start()
        everything = {key: x.clone() for key, x in policy.state_dict().items()}

        def refresh() -> None:
            sent.put(state_to_bytes({"policy": everything}))
            message = received.get(timeout=300)
            policy.load_state_dict(bytes_to_state_dict(message)["policy"])

        yield refresh
        stop.set()
        server.stop(1).wait()


def measure(size: str, dtype: str, rounds: int) -> str:
    """Return the table's row of a size."""
    policy = XVLAPolicy(part_of_published(PARTS[size])).eval()
    sizes = {key: x.nbytes for key, x in policy.state_dict().items()}
    head = sum(n for key, n in sizes.items() if key.startswith("model.transformer."))
    width = {"float32": 1.0, "bfloat16": 0.5}[dtype]
    with our_way(policy, getattr(torch, dtype)) as ours, their_way(policy) as theirs:
        steps = {"ours": ours, "theirs": theirs}
        mine, other = timing.alternately(steps, rounds, clock=time.perf_counter).values()
    mebibytes = head * width / 2**20, sum(sizes.values()) / 2**20
    return timing.row(
        size, dtype, *(f"{x:.0f}" for x in mebibytes), mine, other, timing.ratio(mine, other), GOAL
    )


def main() -> None:
    """Print rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=["quarter"], choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--dtype", default=["float32", "bfloat16"], nargs="*", choices=["float32", "bfloat16"]
    )
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    plugin.register()
    names = ("size", "push", "head (MiB)", "all (MiB)", "ours (s)", "LeRobot's (s)", "÷ LeRobot's", "goal")
    print(timing.header(names))
    for size in options.sizes:
        for dtype in options.dtype:
            print(measure(size, dtype, options.rounds), flush=True)


if __name__ == "__main__":
    main()
