"""How much slower a run learns while somebody watches it on the same machine.

python tests/benchmarks/bench_watch.py [--seconds S] [--rounds N] [--rows N]

The updates are products of matrices on all of JAX's CPU cores, each followed by a row of metrics and a word
for ``status.json``, as a learner's are. In turns: nobody watches; ``pirl-watch`` serves the run to a page in
a headless Chromium (without one, to a client that asks as often). ``--rows`` are there before.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean

import jax
import jax.numpy as jnp

sys.path.append(str(Path(__file__).resolve().parents[1]))
from watched_run import status, update_row, write_config, write_long

from bridge.wire.status_file import StatusFile
from pirl_jax.run_folder.layout import STATUS
from pirl_jax.training.metrics import MetricsWriter

SETTLE_S = 8.0
"""For the page to start and to read what is there."""
POLL_S = 2.0


def main() -> None:
    """Measure, and print a line a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    shares = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_long(folder, options.rows)
        write_config(folder)
        with MetricsWriter(folder, options.rows) as writer:
            update = learner(folder, writer, options.rows)
            update()  # compiles
            for number in range(1, options.rounds + 1):
                off, on = (
                    rate(update, options.seconds, nullcontext()),
                    rate(update, options.seconds, watched(folder)),
                )
                shares.append(on / off)
                print(f"round {number}: {off:.2f} updates/s, watched {on:.2f} ({100 * on / off:.1f} %)")
    print(f"watched, {100 * fmean(shares):.1f} % of the updates in the mean of {len(shares)} rounds")


def learner(folder: Path, writer: MetricsWriter, done: int) -> Callable[[], None]:
    """Return what does one update and writes it down."""
    draw, said, count = random.Random(0), StatusFile(folder / STATUS), [done]
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 12, lambda _, y: jnp.tanh(y @ x), x))
    x = jnp.full((768, 768), 1e-3)

    def update() -> None:
        work(x).block_until_ready()
        count[0] += 1
        writer.write(count[0], update_row(count[0], draw))
        said.write(status(count[0], 10**6))

    return update


def rate(update: Callable[[], None], seconds: float, watching: object) -> float:
    """Return updates a second while somebody watches, or nobody does."""
    with watching:  # type: ignore[attr-defined]
        began, count = time.monotonic(), 0
        while (spent := time.monotonic() - began) < seconds:
            update()
            count += 1
    return count / spent


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Serve a run to a page for as long as the context lasts."""
    command = [sys.executable, "-m", "bridge.watch", str(folder), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split(" is shown at ")[1].split(" ")[0]
        try:
            with _browser(address) if shutil.which("chromium") else _client(address):
                time.sleep(SETTLE_S)
                yield
        finally:
            server.kill()


@contextmanager
def _browser(address: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as profile:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command = ["chromium", *arguments, f"--user-data-dir={profile}", address]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                yield
            finally:
                browser.terminate()
                browser.wait()


@contextmanager
def _client(address: str) -> Iterator[None]:
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(POLL_S):
            urllib.request.urlopen(f"{address}news").read()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
