"""What the guard of a port costs a call: the token, the limits of one host, TLS. Run it as a script.

python tests/benchmarks/bench_guard.py [rounds] [--output FILE]

A unary call of gRPC's that says what it is sent, client and server in one process on one pinned core: CPU
microseconds a call, of both together, and calls a second of one client that waits for each answer. "plain" is
gRPC's own server with the same options; "limits" is the guard of a run without a token. All take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import timing  # noqa: E402 isort: skip

timing.pin()

import grpc  # noqa: E402
from certificates import Authority, token_file  # noqa: E402

from bridge.trust import listener  # noqa: E402
from bridge.trust.dialer import Dialer  # noqa: E402
from pirl_jax.recipe import SecurityConfig  # noqa: E402

METHOD = "/bench.Echo/Say"
SIZES = {"64 B": (64, 1000), "1 MiB": (1 << 20, 30)}
"""Bytes of a message, and calls in a round."""
FAST = {"max_messages_per_s": 1e6, "max_mb_per_s": 1e6}
Call = Callable[[bytes], bytes]


@contextmanager
def server(security: SecurityConfig, guarded: bool = True) -> Iterator[Call]:
    """Serve, and give the call; without a guard it is gRPC's own server."""
    say = grpc.unary_unary_rpc_method_handler(lambda data, context: data)
    handler = grpc.method_handlers_generic_handler("bench.Echo", {"Say": say})
    door = listener.Listener(security, "127.0.0.1", 0, 20, "bench", "")
    made = grpc.server

    def unguarded(pool: ThreadPoolExecutor, interceptors: object, **options: object) -> grpc.Server:
        return made(pool, **options)

    with patch.object(listener.grpc, "server", made if guarded else unguarded):
        port = door.open(lambda there: there.add_generic_rpc_handlers((handler,)))
    try:
        with Dialer(security).open(f"127.0.0.1:{port}") as channel:
            yield channel.unary_unary(METHOD)
    finally:
        door.close()


def measure(call: Call, size: int, calls: int) -> tuple[float, float]:
    """Return CPU microseconds a call, and calls a second."""
    data = bytes(size)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call(data)
    spent = time.process_time() - cpu
    return 1e6 * spent / calls, calls / (time.perf_counter() - started)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=9)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        token = {"token_file": token_file(folder)}
        ways = {
            "plain": (SecurityConfig(**FAST), False),
            "limits": (SecurityConfig(**FAST), True),
            "token": (SecurityConfig(**token, **FAST), True),
            "token and TLS": (SecurityConfig(**token, **Authority(folder).server, **FAST), True),
        }
        found = run(ways, options.rounds)
    print(timing.header(("message", "way", "CPU µs a call", "over plain", "calls a second")))
    for size, by_way in found.items():
        for way, (cpu, rate) in by_way.items():
            print(timing.row(size, way, cpu, cpu - by_way["plain"][0], rate))
    if options.output is not None:
        named = {
            size: {way: dict(zip(("cpu_us", "calls_per_s"), of)) for way, of in by_way.items()}
            for size, by_way in found.items()
        }
        options.output.write_text(json.dumps({"rounds": options.rounds, **named}, indent=2) + "\n")


def run(
    ways: dict[str, tuple[SecurityConfig, bool]], rounds: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return each way's medians, by size; ways and sizes take turns."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for way, (security, guarded) in ways.items():
            with server(security, guarded) as call:
                for size, (length, calls) in SIZES.items():
                    measure(call, length, 20)
                    taken = measure(call, length, calls)
                    if turn:  # the first is to warm up
                        times.setdefault((size, way), []).append(taken)
    return {
        size: {
            way: (median(cpu for cpu, _ in got), median(rate for _, rate in got))
            for way in ways
            if (got := times[size, way])
        }
        for size in SIZES
    }


if __name__ == "__main__":
    main()
