"""Acting by a policy server over acting by the stock policy. Run it as a script.

python tests/benchmarks/bench_serving.py                    # supply, waiting and demand of the small policy
python tests/benchmarks/bench_serving.py supply [tiny|small|published …] [--batches 1 2 4]
python tests/benchmarks/bench_serving.py waiting [small] [--actors 4]
python tests/benchmarks/bench_serving.py demand [--actors 1 2 4]
python tests/benchmarks/bench_serving.py libero [small|published] [--actors 4] [--updates 2] [--rounds 1]

``supply``: chunks a second of one program call at each batch size, and of LeRobot's own ``select_action`` at
batch 1, in turn in one run; on a CPU it is of one pinned core. ``waiting``: light actors that ask at once and
again as soon as they are answered, over gRPC's loopback, and local ones in turn; CPU seconds of everything,
clients included. ``demand``: chunks a second that so many LIBERO simulators want whose policy takes no time.
Where supply and demand cross, more actors wait for the policy instead of the policy for them. ``libero``: a
learner and stock actors on LIBERO, served and local in turn: episodes a minute, and what the processes hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "benchmarks"), str(TESTS / "libero")]

import timing  # noqa: E402

SMALL = TESTS.parent / "configs/pirl_libero_small_sft.json"
VIEWS = 2
ALL_CORES = os.sched_getaffinity(0)
RUN = 9


def policy_config(size: str, **overrides: Any) -> Any:
    """Return LeRobot's config of a policy: the small recipe's, or a part of the published one."""
    import draccus
    from lerobot.policies.xvla import XVLAConfig
    from published import PARTS, part_of_published

    if size != "small":
        return part_of_published(PARTS[size], device="cpu", push_to_hub=False, **overrides)
    values = json.loads(SMALL.read_text())["policy"]
    del values["type"]
    return draccus.decode(XVLAConfig, values | overrides)


class Served:
    """A policy server around a policy with random weights."""

    def __init__(self, stock: Any, sizes: tuple[int, ...], precision: Any = "highest") -> None:
        import jax

        from bridge.weights.export import policy_config as of_lerobot
        from bridge.weights.state_dict import params_from_state
        from pirl_jax.recipe import NoiseConfig, ServeConfig
        from pirl_jax.rollout.behaviour import Behaviour, as_pushed
        from pirl_jax.serving.service import PolicyService
        from pirl_jax.xvla.policy import XVLAFlowPolicy

        config = of_lerobot(stock.config)
        self.policy = XVLAFlowPolicy(config, head_precision=precision)
        trainable, frozen = self.policy.split(jax.device_put(params_from_state(stock.state_dict(), config)))
        trainable = jax.tree.map(lambda leaf: leaf.astype("float32"), trainable)
        noise, settings = NoiseConfig(level=0.01), ServeConfig(max_batch=max(sizes))
        self.service = PolicyService(self.policy, noise, settings, clients=lambda: self.clients)
        self.clients = 0
        self.service.acting.sizes = sizes
        self.height, self.tokens = self._sizes(stock.config)
        images = (VIEWS, 3, self.height, self.height)
        self.bytes = self.service.compile(frozen, trainable, images, self.tokens, config.dim_proprio)
        self.service.begin(frozen)
        self.service.publish(RUN, 1, as_pushed(Behaviour(trainable, 0, 0.01)))

    @staticmethod
    def _sizes(config: Any) -> tuple[int, int]:
        (shape, *_) = (feature.shape for feature in config.image_features.values())
        return shape[1], config.tokenizer_max_length

    def asked(self, seed: int) -> Any:
        """Return a made-up observation."""
        import numpy as np

        from pirl_jax.serving.acting import Asked

        rng = np.random.default_rng(seed)
        return Asked(
            images=rng.integers(0, 256, (VIEWS, 3, self.height, self.height), np.uint8),
            tokens=rng.integers(0, 12, self.tokens),
            proprio=rng.standard_normal(20).astype(np.float32),
            domain_id=0,
            noise_key=seed,
            chunk=0,
        )


def local(stock: Any) -> Any:
    """Return a stock policy's own way to act, as the plugin's actor does it, and an observation for it."""
    import torch
    from lerobot.policies.factory import make_pre_post_processors

    from bridge import plugin

    plugin.register()
    from bridge.plugin.algorithm import PiRLAlgorithm
    from bridge.plugin.recipe_config import PiRLConfig

    config = PiRLConfig()
    config.policy_config = stock.config
    algorithm = PiRLAlgorithm(stock, config)
    preprocess, _ = make_pre_post_processors(stock.config)
    generator, features = torch.Generator().manual_seed(0), stock.config.input_features
    views = {
        name: torch.randint(0, 256, (1, *features[name].shape), generator=generator, dtype=torch.uint8)
        for name in stock.config.image_features
        if "empty_camera" not in name
    }
    raw = {
        **views,
        "observation.state": torch.randn((1, *features["observation.state"].shape), generator=generator),
        "observation.language.tokens": torch.randint(
            0, 12, (1, stock.config.tokenizer_max_length), generator=generator
        ),
        "observation.domain_id": torch.tensor([0]),
    }
    return lambda: algorithm.select_action(preprocess.process_observation(raw))


def note(options: argparse.Namespace, *keys: str, found: dict[int, float]) -> None:
    """Add numbers to the file of curves, if one was asked for."""
    if options.into is None:
        return
    curves = json.loads(options.into.read_text()) if options.into.exists() else {}
    place = curves
    for key in keys:
        place = place.setdefault(key, {})
    place.update({str(number): float(f"{rate:.4g}") for number, rate in found.items()})
    options.into.parent.mkdir(parents=True, exist_ok=True)
    options.into.write_text(json.dumps(curves, indent=2) + "\n")


def supply(options: argparse.Namespace) -> None:
    """Print chunks a second by batch size, and of the stock policy."""
    import jax

    on_cpu = jax.default_backend() == "cpu"
    clock = time.process_time if on_cpu else time.monotonic
    from lerobot.policies.xvla import XVLAPolicy

    for size in options.sizes:
        stock = XVLAPolicy(policy_config(size)).eval()
        served = Served(stock, tuple(options.batches), options.precision)
        steps: dict[str, Any] = {"stock, 1 at a time": local(stock)}
        for batch in options.batches:
            asked = [served.asked(seed) for seed in range(batch)]
            steps[f"served, {batch} at a time"] = partial(served.service.acting, asked)
        found = timing.alternately(steps, options.rounds, clock=clock)
        stock_s = found["stock, 1 at a time"]
        unit = "chunks a CPU second" if on_cpu else "chunks a second"
        print(
            f"{size}, {options.precision}; {jax.devices()[0].device_kind}; beside the encoder "
            f"{served.bytes / 2**30:.2f} GiB"
        )
        rates = {}
        for name, seconds in found.items():
            count = int(name.split(", ")[1].split()[0])
            assert seconds is not None
            rates[count if name.startswith("served") else 0] = count / seconds
            print(
                f"  {name:22} {count / seconds:9.3f} {unit}   {count * stock_s / seconds:6.2f} × stock",
                flush=True,
            )
        note(options, "supply", size, found=rates)


class Clients:
    """Light actors that do nothing but ask, over gRPC."""

    def __init__(self, served: Served, count: int) -> None:
        import grpc

        from bridge.plugin import transport
        from bridge.plugin.policy_server import PolicyServerClient
        from bridge.wire import act
        from bridge.wire.act_service import ActService
        from bridge.wire.spec import EpisodeSpec

        config = served.policy.config
        spec = EpisodeSpec(
            image_keys=("a", "b"), image_shape=(3, served.height, served.height), num_tokens=served.tokens,
            proprio_dim=20, chunk_size=config.chunk_size, n_action_steps=config.chunk_size,
            env_action_dim=20, action_dim=config.dim_action, num_latents=3, denoise_steps=(1,), max_chunks=1,
        )  # fmt: skip
        self.stop, self._act = threading.Event(), act
        self._server = grpc.server(ThreadPoolExecutor(2 * count + 2))
        self._server.add_generic_rpc_handlers(
            (ActService(served.service, spec, lambda: RUN, self.stop).handler(),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._batcher = served.service.__enter__().batcher
        latents = (3, config.chunk_size, config.dim_action)
        self._ask = []
        for i in range(count):
            episodes = SimpleNamespace(server="", say_alive=lambda: None)
            channel: Any = SimpleNamespace(
                plain=transport.open_channel(f"127.0.0.1:{port}"), stop=self.stop, episodes=episodes
            )
            self._ask.append((PolicyServerClient(channel, latents), served.asked(i), f"actor{i}"))
        self.totals = self._batcher.totals

    def round(self, chunks: int) -> None:
        """Have every client ask for so many, one after the other."""
        act = self._act

        def play(server: Any, asked: Any, name: str) -> None:
            for i in range(chunks):
                question = act.Question(name, act.name_of(asked.tokens), 0, asked.noise_key, i, RUN, 1, False)
                server.ask(question, act.Observation(asked.images, asked.proprio), asked.tokens)

        threads = [threading.Thread(target=play, args=each) for each in self._ask]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def waiting(options: argparse.Namespace) -> None:
    """Print CPU seconds a chunk, of clients and server and of the stock policy, and the mean batch."""
    from lerobot.policies.xvla import XVLAPolicy

    for size in options.sizes:
        stock = XVLAPolicy(policy_config(size)).eval()
        served = Served(stock, (1, 2, 4))
        served.clients = options.actors
        clients, act, chunks = Clients(served, options.actors), local(stock), 8
        per_chunk: dict[str, list[float]] = {"served": [], "local": []}
        clients.round(2)
        act()
        before = clients.totals.answered, clients.totals.batches
        for _ in range(options.rounds):
            spent = timing.seconds(partial(clients.round, chunks))
            per_chunk["served"].append(spent / (chunks * options.actors))
            per_chunk["local"].append(timing.seconds(act, chunks))
        batch = (clients.totals.answered - before[0]) / (clients.totals.batches - before[1])
        served_s, local_s = (statistics.median(each) for each in per_chunk.values())
        print(
            f"{size}: mean batch of {options.actors} waiting actors {batch:.2f} (goal 3); CPU ms a chunk "
            f"{1000 * served_s:.1f} served, {1000 * local_s:.1f} local: {served_s / local_s:.2f} (goal 0.6)"
        )


def simulate(chunks: int) -> None:
    """Be a LIBERO simulator whose policy takes no time; print chunks a second."""
    import numpy as np
    from assets import point_libero_at_assets

    if problem := point_libero_at_assets():
        sys.exit(f"skipped: {problem}")
    from chunked import chunked, random_chunk, row, task

    env = chunked(task("libero_object", 0), image_size=128)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.step(row(random_chunk(rng, 10)))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    for _ in range(chunks):
        env.step(row(random_chunk(rng, 10)))
    print(chunks / (time.monotonic() - started), flush=True)


def demand(options: argparse.Namespace) -> None:
    """Print chunks a second that simulators want, by their number."""
    wanted = {}
    for count in options.actors:
        command = [sys.executable, __file__, "simulate", "--chunks", str(options.chunks)]
        running = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(count)
        ]
        for each in running:
            assert each.stdout is not None
            while each.stdout.readline() != "ready\n":  # LIBERO prints, too
                assert each.poll() is None, "a simulator has ended; run `simulate` by itself"
        for each in running:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        rates = [float(each.communicate()[0]) for each in running]
        wanted[count] = sum(rates)
        print(f"{count:3} simulators: {wanted[count]:6.2f} chunks of 10 steps a second", flush=True)
    note(options, "demand", found=wanted)


class Run:
    """A learner and stock actors on LIBERO, from a policy with random weights.

    Args:
        folder: Empty; everything goes there.
        options: Of the command line.
        inference: ``served`` or ``local``.
    """

    def __init__(self, folder: Path, options: argparse.Namespace, inference: str) -> None:
        import draccus
        from assets import libero_config
        from lerobot.configs import PreTrainedConfig
        from lerobot.policies.xvla import XVLAPolicy
        from tiny import build_tokenizer, write_run_config

        from bridge.processes import free_port

        self.folder, self._options = folder, options
        folder.mkdir()
        own = {"tokenizer_name": str(build_tokenizer(folder / "tokenizer"))}
        own |= {"num_denoising_steps": options.steps} if options.steps else {}
        policy = policy_config(options.size, **own)
        XVLAPolicy(policy).save_pretrained(folder / "base")
        size, length = policy.image_features["observation.images.image"].shape[1], policy.n_action_steps
        algorithm = {
            "noise": {"level": 0.01},
            "inference": inference,
            "rollout": {
                "episodes_per_update": options.episodes, "max_chunks": options.chunks, "max_staleness": 1
            },
            "push": {"dtype": "bfloat16"},
        }  # fmt: skip
        if inference == "served":
            algorithm["serve"] = {"max_batch": options.actors}
        env = {
            "type": "libero", "task": "libero_object", "task_ids": [0], "control_mode": "absolute",
            "observation_height": size, "observation_width": size, "episode_length": options.chunks * length,
            "gym_id": None, "max_episode_steps": None,
        }  # fmt: skip
        config = write_run_config(
            folder, free_port(), policy=draccus.encode(policy, PreTrainedConfig), algorithm=algorithm
        )
        values = json.loads(config.read_text())
        values["env"] = {name: value for name, value in env.items() if value is not None}
        values |= {"policy": {"path": str(folder / "base")}, "steps": options.updates, "save_freq": 0}
        config.write_text(json.dumps(values))
        self._config = config
        self._environment = os.environ | libero_config() | {"MUJOCO_GL": "egl", "JAX_PLATFORMS": "cpu"}

    def measure(self) -> dict[str, Any]:
        """Run it to its end; return episodes a minute after the first update, and memory in GiB."""
        metrics, held = self.folder / "output/metrics.jsonl", {"learner": 0.0, "actor": 0.0, "all": 0.0}
        seen: list[float] = []
        learner = self._start("pirl_jax.learner", "learner", f"--config_path={self._config}")
        actors: list[subprocess.Popen[bytes]] = []
        try:
            while learner.poll() is None:
                lines = metrics.read_text().count("\n") if metrics.exists() else 0
                seen += [time.monotonic()] * (lines - len(seen))
                if not actors and "listens on" in (self.folder / "learner.log").read_text():
                    actors = [self._actor(number) for number in range(self._options.actors)]
                sizes = [_resident(process.pid) for process in (learner, *actors)]
                held["learner"], held["all"] = max(held["learner"], sizes[0]), max(held["all"], sum(sizes))
                held["actor"] = max(held["actor"], *sizes[1:], 0.0)
                time.sleep(0.5)
            if learner.returncode:
                raise RuntimeError((self.folder / "learner.log").read_text()[-3000:])
        finally:
            for process in (learner, *actors):
                process.kill()
                process.wait()
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        count = self._options.episodes * (len(seen) - 1)
        gap = max(row["train/actor_learner_logprob_gap"] for row in rows)
        calls = rows[-1].get("train/encoder_calls")
        minutes = (seen[-1] - seen[0]) / 60
        return {
            "episodes/min": count / minutes if minutes else None,
            **held,
            "gap": gap,
            "encoder": calls,
            "batch": rows[-1].get("serve/batch"),
            "batch_ms": rows[-1].get("serve/batch_ms"),
            "policy steps": rows[-1]["train/policy_steps"],
            "forgotten": rows[-1]["dropped/stale_chunks"],
        }

    def _actor(self, number: int) -> subprocess.Popen[bytes]:
        own = [f"--output_dir={self.folder}/actor{number}", f"--env.actor_id={number}"]
        plugin = "--env.discover_packages_path=bridge.plugin"
        return self._start(
            "lerobot.rl.actor", f"actor{number}", f"--config_path={self._config}", plugin, *own
        )

    def _start(self, module: str, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        threads = {} if name == "learner" else {"OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=log, stderr=subprocess.STDOUT, env=self._environment | threads,
            )  # fmt: skip


def _resident(pid: int) -> float:
    """Return what a process holds for itself (``Pss`` counts what others share by their part), in GiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 2**20


def libero(options: argparse.Namespace) -> None:
    """Print episodes a minute and memory of runs, served and local in turn."""
    with tempfile.TemporaryDirectory(prefix="pirl-serving-") as name:
        for number in range(options.rounds):
            for inference in options.inference:
                found = Run(Path(name) / f"{inference}{number}", options, inference).measure()
                shown = ", ".join(f"{key} {value:.3g}" for key, value in found.items() if value is not None)
                print(f"{options.size}, {options.actors} actors, {inference}: {shown}", flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(dest="kind")
    kind = kinds.add_parser("supply")
    kind.add_argument("sizes", nargs="*", default=["small"])
    kind.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    kind.add_argument("--precision", default="highest")
    kind.add_argument("--rounds", type=int, default=5)
    kind.add_argument("--into", type=Path)
    kind = kinds.add_parser("waiting")
    kind.add_argument("sizes", nargs="*", default=["small"])
    kind.add_argument("--actors", type=int, default=4)
    kind.add_argument("--rounds", type=int, default=7)
    kind = kinds.add_parser("demand")
    kind.add_argument("--actors", nargs="+", type=int, default=[1, 2, 4])
    kind.add_argument("--chunks", type=int, default=20)
    kind.add_argument("--into", type=Path)
    kind = kinds.add_parser("libero")
    kind.add_argument("size", nargs="?", default="small")
    kind.add_argument("--inference", nargs="+", default=["served", "local"])
    kind.add_argument("--actors", type=int, default=4)
    kind.add_argument("--updates", type=int, default=3)
    kind.add_argument("--episodes", type=int, default=8, help="of an update")
    kind.add_argument("--chunks", type=int, default=10, help="of an episode")
    kind.add_argument("--steps", type=int, help="of denoising")
    kind.add_argument("--rounds", type=int, default=1)
    kind = kinds.add_parser("simulate")
    kind.add_argument("--chunks", type=int, default=20)
    for arguments in [sys.argv[1:]] if sys.argv[1:] else [["supply"], ["waiting"], ["demand"]]:
        options = parser.parse_args(arguments)
        if options.kind in ("supply", "waiting"):
            timing.pin()
        elif options.kind in ("demand", "libero"):
            os.sched_setaffinity(0, ALL_CORES)
        if options.kind == "simulate":
            simulate(options.chunks)
        else:
            kinds_of = {"supply": supply, "waiting": waiting, "demand": demand, "libero": libero}
            kinds_of[options.kind](options)


if __name__ == "__main__":
    main()
