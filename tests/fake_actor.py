"""An actor that sends fixed rollouts over LeRobot's wire, stamped with whatever version the learner has
published."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import grpc
import numpy as np
import torch
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import bytes_to_state_dict, send_bytes_in_chunks, transitions_to_bytes

from bridge.wire.record import Record, pack

CHUNK, E, TOKENS = 8, 4, 10


def rollout(seed: int, version: int, chunks: int = 2, num_latents: int = 3, denoise_step: int = 1) -> bytes:
    """An episode for ``tiny_policy_config``; the seed decides everything but the version."""
    rng = np.random.default_rng(seed)

    def observation() -> dict[str, torch.Tensor]:
        return {
            "observation.images.front": torch.from_numpy(
                rng.integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
            ),
            "observation.state": torch.from_numpy(rng.standard_normal((1, 5), dtype=np.float32)),
            "observation.language.tokens": torch.from_numpy(rng.integers(0, 12, (1, TOKENS))),
            "observation.domain_id": torch.tensor([0]),
        }

    observations = [observation() for _ in range(chunks + 1)]
    succeeds = float(rng.random() < 0.5)
    episode = []
    for t in range(chunks):
        last = t == chunks - 1
        rewards = [0.0] * (CHUNK - 1) + [succeeds if last else 0.0]
        record = Record(
            env_action=rng.standard_normal((CHUNK, E), dtype=np.float32),
            latents=0.1 * rng.standard_normal((num_latents, CHUNK, E), dtype=np.float32),
            log_prob=rng.standard_normal(CHUNK, dtype=np.float32),
            denoise_step=denoise_step,
            version=version,
        )
        episode.append(
            {
                "state": observations[t],
                "action": torch.from_numpy(pack(record))[None],
                "reward": sum(rewards),
                "next_state": observations[t + 1],
                "done": last and bool(succeeds),
                "truncated": last and not succeeds,
                "complementary_info": {
                    "discrete_penalty": torch.tensor(
                        [[CHUNK, succeeds if last else 0.0, 1.0, 0.0, 0.0, -1.0, *rewards]]
                    )
                },
            }
        )
    return transitions_to_bytes(episode)


class FakeActor:
    """Keeps the learner's newest version; sends messages."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = services_pb2_grpc.LearnerServiceStub(self._channel)
        self._changed = threading.Condition()
        self.version = 0
        self.push: dict[str, Any] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: bytes) -> None:
        """Deliver one episode and wait for the acknowledgement."""
        parts = send_bytes_in_chunks(message, services_pb2.Transition)
        self._stub.SendTransitions(
            parts, metadata=[("pirl-message-id", uuid.uuid4().hex)], wait_for_ready=True
        )

    def wait_for_version_after(self, version: int, timeout: float = 180.0) -> int:
        """Return the first version seen that is newer."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.version > version, timeout), f"still {self.version}"
            return self.version

    def close(self) -> None:
        self._channel.close()

    def _listen(self) -> None:
        buffer = b""
        while True:
            try:
                for part in self._stub.StreamParameters(services_pb2.Empty(), wait_for_ready=True):
                    buffer = b"" if part.transfer_state == services_pb2.TRANSFER_BEGIN else buffer
                    buffer += part.data
                    if part.transfer_state == services_pb2.TRANSFER_END:
                        with self._changed:
                            self.push = bytes_to_state_dict(buffer)
                            self.version = int(self.push["version"])
                            self._changed.notify_all()
                        buffer = b""
            except grpc.RpcError:
                time.sleep(0.2)
            except ValueError:  # the channel was closed
                return
