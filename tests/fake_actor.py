"""An actor without a process: the plugin's own channel and algorithm, on observations that are made up."""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import draccus
import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.xvla import XVLAPolicy
from lerobot.rl.train_rl import TrainRLServerPipelineConfig
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import bytes_to_state_dict, send_bytes_in_chunks, transitions_to_bytes

from bridge import plugin
from bridge.plugin import transport
from bridge.plugin.agreement import fingerprint
from bridge.plugin.algorithm import PiRLAlgorithm
from bridge.plugin.transport import LearnerChannel, open_channel
from bridge.wire.record import unpack
from pirl_jax.rollout.assignments import Assignment

CHUNKS = 2
"""Decisions in an episode."""


def parse(config: Path) -> Any:
    """Return a run's validated config, as a command gets it.

    Not by LeRobot's parser, which builds an option for every setting of every registered class: in a process
    that has imported them all, half a minute.
    """
    plugin.register()
    values = json.loads(config.read_text())
    policy = values["policy"]
    if "path" in policy:
        del values["policy"]
    # The learner's folder is there already.
    values["output_dir"] = f"{tempfile.mkdtemp()}/actor"
    cfg: Any = draccus.decode(TrainRLServerPipelineConfig, values)
    if "path" in policy:
        cfg.policy = PreTrainedConfig.from_pretrained(policy["path"])
        cfg.policy.pretrained_path = Path(policy["path"])
        for name, value in policy.items():
            if name != "path":
                setattr(cfg.policy, name, value)
    with no_stock_actor():
        cfg.validate()
    return cfg


def no_stock_actor() -> Any:
    """A process of tests is none, though LeRobot's actor may have been imported in it."""
    return patch.object(transport, "is_actor", lambda: False)


class FakeActor:
    """Plays what the learner assigns: two chunks each, whose observations and outcome the seed decides.

    Args:
        config: Of the run, whose policy has a base checkpoint.
        patience_s: Seconds after which a message that is not acknowledged is a failure.
    """

    def __init__(self, config: Path, patience_s: float = 60.0) -> None:
        self._patience_s = patience_s
        cfg = parse(config)
        address = cfg.algorithm.actor_learner_config
        self._stop = threading.Event()
        self._messages: queue.Queue[bytes] = queue.Queue()
        plain = open_channel(f"{address.learner_host}:{address.learner_port}")
        self.channel = LearnerChannel(plain, self._stop)
        stub = services_pb2_grpc.LearnerServiceStub(self.channel)
        for run in (
            lambda: list(stub.StreamParameters(services_pb2.Empty())),
            lambda: stub.SendTransitions(self._stream()),
        ):
            threading.Thread(target=run, daemon=True).start()
        self.policy = XVLAPolicy.from_pretrained(cfg.policy.pretrained_path, config=cfg.policy)
        with no_stock_actor():
            self.algorithm = PiRLAlgorithm(self.policy, cfg.algorithm)
        self._preprocess, _ = make_pre_post_processors(cfg.policy)
        self._agreement = {
            **cfg.algorithm.agreement(),
            "frozen tensors": fingerprint(self.policy.state_dict()),
        }
        self._registered = False

    def next(self) -> Assignment:
        """Return what the learner wants played, waiting for it."""
        if not self._registered:
            self.channel.episodes.register("fake", self._agreement)
            self.algorithm.acting.channel = self.channel
            self._registered = True
        return self.channel.episodes.next()

    def play(self, assigned: Assignment) -> bytes:
        """Play it; return the message."""
        rng = np.random.default_rng(assigned.seed)
        chunk = self.policy.config.n_action_steps
        observations = [_observation(rng, self.policy.config) for _ in range(CHUNKS + 1)]
        succeeds = float(rng.random() < 0.5)
        episode = []
        for t in range(CHUNKS):
            last = t == CHUNKS - 1
            row = self.algorithm.select_action(self._preprocess.process_observation(observations[t]))
            rewards = [0.0] * (chunk - 1) + [succeeds if last else 0.0]
            success = succeeds if last else 0.0
            halves = float(assigned.seed & 0xFFFF), float(assigned.seed >> 16)
            extra = torch.tensor([[chunk, success, *halves, 0.0, -1.0, *rewards]])
            episode.append(
                {
                    "state": observations[t],
                    "action": row,
                    "reward": sum(rewards),
                    "next_state": observations[t + 1],
                    "done": last and bool(succeeds),
                    "truncated": last and not succeeds,
                    "complementary_info": {"discrete_penalty": extra},
                }
            )
        assert unpack(row.numpy()).number == assigned.number
        return transitions_to_bytes(episode)

    def send(self, message: bytes) -> None:
        """Deliver an episode and wait for the acknowledgement."""
        held = len(self.channel.episodes._held)
        self._messages.put(message)
        deadline = time.monotonic() + self._patience_s
        while len(self.channel.episodes._held) >= held:
            assert time.monotonic() < deadline, "no acknowledgement"
            time.sleep(0.005)

    def episodes(self, count: int) -> None:
        """Play and send as many, one after the other."""
        for _ in range(count):
            self.send(self.play(self.next()))

    def wait_for_version(self, version: int) -> Any:
        """Return who acts, with parameters of this version."""
        deadline = time.monotonic() + 120
        while self.algorithm.acting.version < version:
            assert time.monotonic() < deadline, f"still {self.algorithm.acting.version}"
            message = self.channel.parameters.take(1)
            if message is not None:
                self.algorithm.load_weights(bytes_to_state_dict(message))
        return self.algorithm.acting

    def close(self) -> None:
        """End all threads."""
        self._stop.set()
        self.channel.close()

    def _stream(self) -> Any:
        while not self._stop.is_set():
            try:
                message = self._messages.get(timeout=0.05)
            except queue.Empty:
                continue
            yield from send_bytes_in_chunks(message, services_pb2.Transition)


def _observation(rng: np.random.Generator, config: Any) -> dict[str, torch.Tensor]:
    shapes = {name: feature.shape for name, feature in config.input_features.items()}
    views = {
        name: torch.from_numpy(rng.integers(0, 256, (1, *shape), dtype=np.uint8))
        for name, shape in shapes.items()
        if name in config.image_features and "empty_camera" not in name
    }
    state = rng.standard_normal((1, *shapes["observation.state"]), dtype=np.float32)
    tokens = rng.integers(0, 12, (1, config.tokenizer_max_length))
    return {
        **views,
        "observation.state": torch.from_numpy(state),
        "observation.language.tokens": torch.from_numpy(tokens),
        "observation.domain_id": torch.tensor([0]),
    }
