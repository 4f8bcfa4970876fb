"""Time of a parameter push: serialising, loopback to an actor, loading there. Run it as a script.

python tests/benchmarks/bench_transport.py [MB …]
"""

from __future__ import annotations

import argparse
import queue
import threading
import time

import grpc
import torch
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import bytes_to_state_dict, grpc_channel_options, receive_bytes_in_chunks

from bridge.wire.server import LearnerServer
from pirl_jax.rollout.assignments import Assignments

TENSORS = 16


def measure(megabytes: int) -> tuple[float, float, float]:
    """Return seconds to publish (serialise), to receive and to load a push of this size."""
    count = megabytes * 1024 * 1024 // 4 // TENSORS
    tensors = {f"model.transformer.blocks.{i}.weight": torch.randn(count) for i in range(TENSORS)}
    received: queue.Queue[bytes] = queue.Queue()
    with (
        LearnerServer(
            "127.0.0.1", 0, decode=lambda message: None, assignments=Assignments(1, 0), agreement={}
        ) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", grpc_channel_options()) as channel,
    ):
        stub = services_pb2_grpc.LearnerServiceStub(channel)
        stub.Ready(services_pb2.Empty())
        stream = stub.StreamParameters(services_pb2.Empty())

        def receive() -> None:
            try:
                receive_bytes_in_chunks(stream, received, threading.Event())
            except grpc.RpcError:
                received.put(b"")

        threading.Thread(target=receive, daemon=True).start()
        server.publish(1, 0.1, {"warm.up": torch.zeros(1)})
        received.get(timeout=60)
        started = time.perf_counter()
        server.publish(2, 0.1, tensors)
        published = time.perf_counter()
        message = received.get(timeout=600)
        arrived = time.perf_counter()
        bytes_to_state_dict(message)
        loaded = time.perf_counter()
    return published - started, arrived - published, loaded - arrived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("megabytes", nargs="*", type=int, default=[1, 10, 50, 200])
    sizes = parser.parse_args().megabytes
    print(f"{'push (MB)':>10} {'serialise (s)':>14} {'loopback (s)':>13} {'load (s)':>9} {'MB/s':>7}")
    for megabytes in sizes:
        serialise, loopback, load = measure(megabytes)
        rate = megabytes / (serialise + loopback + load)
        print(f"{megabytes:>10} {serialise:>14.3f} {loopback:>13.3f} {load:>9.3f} {rate:>7.0f}")


if __name__ == "__main__":
    main()
