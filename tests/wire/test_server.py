"""The learner's end of the wire, spoken to over real gRPC with LeRobot's own client helpers."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from episodes import SPEC, message, transitions
from lerobot.rl.actor import establish_learner_connection
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import (
    bytes_to_state_dict,
    grpc_channel_options,
    python_object_to_bytes,
    receive_bytes_in_chunks,
    send_bytes_in_chunks,
    transitions_to_bytes,
)

from bridge.plugin.transport import LearnerChannel
from bridge.wire.broadcast import serialise
from bridge.wire.decode import decode_episode
from bridge.wire.inbox import Counts, Inbox
from bridge.wire.protocol import MESSAGE_ID_KEY
from bridge.wire.server import PORT_KEY, LearnerServer
from pirl_jax.rollout.assignments import Assignments, Verdict
from pirl_jax.rollout.evaluation import Evaluation, spread

WAIT_S = 20.0
RECONNECT_FAST = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


class AnyEpisode(Assignments):
    """Wants whatever arrives: most of these tests are about the way there."""

    def deliver(self, number: int, seed: int) -> Verdict:
        return Verdict.WANTED


def start_server(port: int = 0, **settings) -> LearnerServer:
    defaults = {
        "decode": partial(decode_episode, spec=SPEC),
        "assignments": AnyEpisode(100, 0),
        "agreement": {},
    }
    server = LearnerServer("127.0.0.1", port, **(defaults | settings))
    server.run = 0  # as `message` has it
    return server


@contextlib.contextmanager
def connect(server: LearnerServer) -> Iterator[services_pb2_grpc.LearnerServiceStub]:
    """A channel as LeRobot's actor opens it; `learner_service_client` keeps a single one for good."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", grpc_channel_options()) as channel:
        yield services_pb2_grpc.LearnerServiceStub(channel)


def receive(stub: services_pb2_grpc.LearnerServiceStub) -> Actor:
    return Actor(stub.StreamParameters(services_pb2.Empty()))


def chunks(data: bytes) -> list:
    return list(send_bytes_in_chunks(data, services_pb2.Transition))


def send(stub: services_pb2_grpc.LearnerServiceStub, data: bytes, message_id: str | None = None) -> None:
    metadata = [(MESSAGE_ID_KEY, message_id)] if message_id is not None else []
    assert stub.SendTransitions(iter(chunks(data)), metadata=metadata, timeout=WAIT_S) == services_pb2.Empty()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


class Actor:
    """The parameter side of a stock actor: LeRobot's receiver on a thread of its own."""

    def __init__(self, stream: grpc.Call):
        self.queue: queue.Queue[bytes] = queue.Queue()
        self.stream = stream
        self.code: grpc.StatusCode | None = None
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            receive_bytes_in_chunks(self.stream, self.queue, threading.Event())
        except grpc.RpcError as error:
            self.code = error.code()

    def next(self) -> dict:
        return bytes_to_state_dict(self.queue.get(timeout=WAIT_S))

    def leave(self) -> None:
        self.stream.cancel()
        self._thread.join(WAIT_S)

    def join(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


class Sender:
    """The transition side of a stock actor: one endless stream."""

    def __init__(self, stub: services_pb2_grpc.LearnerServiceStub):
        self._chunks: queue.Queue = queue.Queue()
        self.call = stub.SendTransitions.future(iter(self._chunks.get, None))

    def send(self, data: bytes) -> None:
        for chunk in chunks(data):
            self._chunks.put(chunk)

    def send_chunk(self, data: bytes, state: int) -> None:
        self._chunks.put(services_pb2.Transition(data=data, transfer_state=state))

    def finish(self) -> None:
        self._chunks.put(None)
        self.call.result(timeout=WAIT_S)


def test_three_stock_actors_each_receive_every_version():
    with start_server(max_actors=3) as server, contextlib.ExitStack() as stack:
        stubs = [stack.enter_context(connect(server)) for _ in range(3)]
        assert all(establish_learner_connection(stub, threading.Event(), attempts=2) for stub in stubs)
        actors = [receive(stub) for stub in stubs]
        for version in (1, 2, 5):
            server.publish(version, 0.1, {"model.weight": torch.full((2, 3), float(version))})
            for actor in actors:
                received = actor.next()
                assert received["version"] == version
                assert received["version"].dtype == torch.int64
                assert float(received["level"]) == 0.1
                torch.testing.assert_close(
                    received["policy"]["model.weight"], torch.full((2, 3), float(version))
                )
        assert server.stats()["actors"] == 3


def test_actors_send_while_they_receive():
    with start_server(max_actors=3) as server, contextlib.ExitStack() as stack:
        for i in range(3):
            stub = stack.enter_context(connect(server))
            stack.callback(receive(stub).leave)
            sender = Sender(stub)
            stack.callback(sender.finish)
            for j in range(4):
                sender.send(message(1 + j, seed=i))
            assert stub.Ready(services_pb2.Empty(), timeout=WAIT_S) == services_pb2.Empty()
        episodes = [server.get(timeout=WAIT_S) for _ in range(12)]
        lengths = sorted(len(episode) for episode in episodes if episode is not None)
        assert lengths == sorted([1, 2, 3, 4] * 3)


def test_late_joiner_gets_the_newest_version_at_once():
    with start_server() as server, connect(server) as stub:
        server.publish(1, 0.1, {"weight": torch.zeros(1)})
        server.publish(2, 0.1, {"weight": torch.ones(1)})
        actor = receive(stub)
        assert actor.next()["version"] == 2
        actor.leave()
        wait_until(lambda: server.stats()["actors"] == 0)


def test_an_actor_that_lags_skips_to_the_newest_version():
    with start_server() as server, connect(server) as stub:
        server.publish(1, 0.1, {"weight": torch.zeros(4 * 1024 * 1024)})
        stream = stub.StreamParameters(services_pb2.Empty())
        next(stream)  # an actor busy elsewhere: flow control stops the server within the first message
        for version in range(2, 7):
            server.publish(version, 0.1, {"weight": torch.zeros(1)})
        actor = Actor(stream)
        assert [actor.next()["version"] for _ in range(2)] == [1, 6]
        actor.leave()


def test_fifty_megabytes_reach_every_actor_intact():
    weight = torch.arange(50 * 1024 * 1024 // 4, dtype=torch.float32)
    with start_server() as server, connect(server) as one, connect(server) as two:
        actors = [receive(one), receive(two)]
        server.publish(1, 0.1, {"weight": weight})
        for actor in actors:
            assert torch.equal(actor.next()["policy"]["weight"], weight)


def test_a_large_message_reaches_the_learner_intact():
    received = []
    with start_server(decode=lambda data: received.append(data) or decode_episode(message(), SPEC)) as server:
        data = np.random.default_rng(0).bytes(20 * 1024 * 1024 + 1)
        with connect(server) as stub:
            send(stub, data)
        assert server.get(WAIT_S) is not None
    assert received == [data]


@pytest.mark.filterwarnings("error")
def test_numpy_jax_and_torch_tensors_are_published_bit_for_bit():
    values = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    half = jnp.asarray(values, jnp.bfloat16)
    read_only = np.asarray(jnp.asarray(values))
    assert not read_only.flags.writeable
    tensors = {
        "torch": torch.from_numpy(values),
        "transposed": torch.from_numpy(values).T,
        "slice": torch.zeros(1000, 4)[:3].copy_(torch.from_numpy(values)),
        "numpy": read_only,
        "numpy_transposed": values.T,
        "jax": jnp.asarray(values),
        "jax_bf16": half,
        "numpy_bf16": np.asarray(half),
        "parameter": torch.nn.Parameter(torch.from_numpy(values)),
    }
    data = serialise(0, 3, 0.1, tensors)
    assert len(data) < 12_000  # without the slice's 16 kB parent
    policy = bytes_to_state_dict(data)["policy"]
    expected = {name: torch.from_numpy(values.copy()) for name in tensors}
    expected |= {name: expected[name].T for name in ("transposed", "numpy_transposed")}
    expected |= {name: torch.from_numpy(values.copy()).bfloat16() for name in ("jax_bf16", "numpy_bf16")}
    assert policy.keys() == expected.keys()
    for name, tensor in policy.items():
        assert type(tensor) is torch.Tensor
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("version", [0, 4, 5])
def test_versions_must_increase(version: int):
    with start_server() as server:
        server.publish(5, 0.1, {})
        with pytest.raises(ValueError, match="must increase"):
            server.publish(version, 0.1, {})


def test_a_message_id_is_taken_once():
    with start_server() as server, connect(server) as stub:
        for _ in range(3):
            send(stub, message(2), "actor-0:1")
        send(stub, message(3), "actor-0:2")
        assert [len(server.get(WAIT_S)) for _ in range(2)] == [2, 3]
        assert server.get(0.3) is None
        stats = server.stats()
        assert (stats["episodes"], stats["duplicates"], stats["messages"]) == (2, 2, 4)


def test_a_message_resent_while_its_first_copy_is_read_is_taken_once():
    reading, read_on = threading.Event(), threading.Event()

    def decode(data: bytes):
        reading.set()
        assert read_on.wait(WAIT_S)
        return decode_episode(data, SPEC)

    counts = Counts()
    inbox = Inbox(decode, lambda episode: None, counts, threading.Event())
    threads = [threading.Thread(target=inbox.put, args=(message(2), "again", "peer")) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert reading.wait(WAIT_S)
    time.sleep(0.2)
    assert all(thread.is_alive() for thread in threads)
    read_on.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(inbox) == 1
    assert counts.snapshot()["duplicates"] == 1


@pytest.mark.parametrize("data", [[], [message(1), message(2)]], ids=["none", "two"])
def test_a_call_with_an_id_acknowledges_exactly_one_message(data: list[bytes]):
    with start_server() as server, connect(server) as stub:
        requests = [chunk for item in data for chunk in chunks(item)]
        with pytest.raises(grpc.RpcError) as caught:
            stub.SendTransitions(iter(requests), metadata=[(MESSAGE_ID_KEY, "x")], timeout=WAIT_S)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_nan_is_dropped_counted_and_named_while_the_stream_goes_on(caplog: pytest.LogCaptureFixture):
    poisoned = transitions(3)
    poisoned[1]["state"]["observation.state"][0, 0] = torch.nan
    with start_server() as server, connect(server) as stub:
        sender = Sender(stub)
        with caplog.at_level(logging.WARNING, "bridge.wire.inbox"):
            bad = transitions_to_bytes(poisoned)
            for data in (message(1), bad, bad, message(2)):
                sender.send(data)
            assert [len(server.get(WAIT_S)) for _ in range(2)] == [1, 2]
        sender.finish()
        assert server.stats()["dropped"] == {"nan": 2}
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert "[nan]" in lines[0]
        assert "observation.state" in lines[0]


def test_garbage_is_dropped_and_acknowledged():
    with start_server() as server, connect(server) as stub:
        send(stub, b"garbage", "g")
        send(stub, message(1), "m")
        assert len(server.get(WAIT_S)) == 1
        assert server.stats()["dropped"] == {"undecodable": 1}


def assigned_to(actor: str, assignments: Assignments, run: int, chunks: int = 1) -> bytes:
    given = assignments.next(actor, 0)
    assert given is not None
    return message(chunks, number=given.number, run=run, episode_seed=given.seed)


def test_an_episode_counts_if_it_was_assigned_by_this_process_and_once():
    assignments = Assignments(4, seed=3)
    assignments.publish(1, 0)
    with start_server(assignments=assignments) as server, connect(server) as stub:
        first = assigned_to("a", assignments, server.run)
        send(stub, first, "a-0")
        send(stub, first, "a-1")
        send(stub, assigned_to("a", assignments, server.run + 1), "a-2")
        send(stub, message(1, number=3), "a-3")
        assert server.get(WAIT_S).number == 0
        assert server.get(0.2) is None
        assert server.stats()["dropped"] == {"duplicate": 1, "other_run": 1, "unassigned": 1}


def test_how_an_evaluations_episode_ended_is_kept_and_nobody_learns_from_it():
    assignments = Assignments(1, seed=3)
    evaluation = Evaluation(0, 7, 3, spread(2, 1))
    assignments.publish(7, 0, evaluation)

    def play(version: int, truncated: bool) -> bytes:
        given = assignments.next("a", 0)
        of = {"number": given.number, "run": server.run, "episode_seed": given.seed, "denoise_step": 0}
        return message(2, version=version, truncated=truncated, **of)

    with start_server(assignments=assignments) as server, connect(server) as stub:
        send(stub, play(7, False), "a-0")
        send(stub, play(6, False), "a-1")  # of older parameters: it is played again
        send(stub, play(8, True), "a-2")
        send(stub, assigned_to("a", assignments, server.run), "a-3")  # training's
        assert server.get(WAIT_S).number == 0
        assert server.get(0.2) is None
        assert server.stats()["dropped"] == {"old_version": 1}
        assert server.stats()["episodes"] == 1
    ended = [evaluation.outcomes[number] for number in evaluation.numbers]
    assert [(each.success, each.total_reward, each.oldest, each.newest) for each in ended] == [
        (True, 1.0, 7, 7),
        (False, 0.0, 8, 8),
    ]


@pytest.mark.parametrize("spoil", [lambda data: data[:100], lambda data: data + bytes(1 << 20)])
def test_an_episode_that_cannot_be_read_is_played_again(spoil):
    assignments = Assignments(4, seed=3)
    assignments.publish(1, 0)
    with start_server(assignments=assignments, max_message_bytes=1 << 20) as server:
        with connect(server) as stub, contextlib.suppress(grpc.RpcError):
            send(stub, spoil(assigned_to("a", assignments, server.run)), "a-0")
        assert assignments.playing == 0
        assert assignments.next("b", 0).number == 0


def test_an_oversized_message_is_skipped_and_its_stream_goes_on(caplog: pytest.LogCaptureFixture):
    with start_server(max_message_bytes=3 * 1024 * 1024) as server, connect(server) as stub:
        sender = Sender(stub)
        with caplog.at_level(logging.WARNING, "bridge.wire.inbox"):
            for data in (message(1), bytes(9 * 1024 * 1024), message(2)):
                sender.send(data)
            assert [len(server.get(WAIT_S)) for _ in range(2)] == [1, 2]
        sender.finish()
        assert server.stats()["dropped"] == {"oversize": 1}
        assert [record.getMessage() for record in caplog.records if "oversize" in record.getMessage()]


def test_an_oversized_call_is_refused_for_good():
    with start_server(max_message_bytes=3 * 1024 * 1024) as server, connect(server) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            send(stub, bytes(9 * 1024 * 1024), "big")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        send(stub, message(1), "small")
        assert len(server.get(WAIT_S)) == 1


def test_an_actor_that_leaves_mid_message_takes_only_that_message_with_it():
    with start_server() as server:
        with connect(server) as stub:
            leaver = Sender(stub)
            leaver.send(message(1))
            leaver.send_chunk(b"half a mess", services_pb2.TransferState.TRANSFER_BEGIN)
            wait_until(lambda: server.stats()["bytes_received"] > len(message(1)))
        wait_until(lambda: server.stats()["dropped"] == {"partial": 1})
        with connect(server) as stub:
            send(stub, message(2))
        assert [len(server.get(WAIT_S)) for _ in range(2)] == [1, 2]


def test_a_begin_discards_what_was_left_unfinished():
    data = message(2)
    states = services_pb2.TransferState
    with start_server() as server, connect(server) as stub:
        sender = Sender(stub)
        sender.send_chunk(b"half a mess", states.TRANSFER_BEGIN)
        sender.send_chunk(b"", states.TRANSFER_BEGIN)
        sender.send_chunk(data, states.TRANSFER_END)
        sender.send_chunk(b"?", states.TRANSFER_UNKNOWN)
        sender.send_chunk(b"!", states.TRANSFER_END)
        sender.send(data)
        sender.finish()
        assert [len(server.get(WAIT_S)) for _ in range(2)] == [2, 2]
        assert server.stats()["dropped"] == {"partial": 1, "framing": 1}


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("an interaction was unpickled",))


def test_interactions_are_counted_and_never_unpickled():
    with start_server() as server, connect(server) as stub:
        requests = [
            chunk
            for item in ({"Episodic reward": 1.0}, Bomb())
            for chunk in send_bytes_in_chunks(python_object_to_bytes(item), services_pb2.InteractionMessage)
        ]
        assert stub.SendInteractions(iter(requests), timeout=WAIT_S) == services_pb2.Empty()
        assert server.stats()["interactions"] == 2


def test_a_port_in_use_is_an_error_that_names_port_and_setting():
    with start_server() as server:
        second = start_server(server.port)
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{server.port}.*{PORT_KEY}"), second:
            pass
    with second:
        assert second.port == server.port


def test_shutdown_takes_under_three_seconds_with_every_kind_of_stream_open():
    with contextlib.ExitStack() as stack:
        server = start_server()
        with server:
            server.publish(1, 0.1, {"weight": torch.zeros(1)})
            actors, senders = [], []
            for _ in range(3):
                stub = stack.enter_context(connect(server))
                actors.append(receive(stub))
                senders.append(Sender(stub))
                actors[-1].next()
            for sender in senders[:2]:
                sender.send(message(1))
            senders[2].send_chunk(b"half a mess", services_pb2.TransferState.TRANSFER_BEGIN)
            wait_until(lambda: server.stats()["messages"] == 2)
            started = time.monotonic()
        assert time.monotonic() - started < 3.0
        for actor in actors:
            actor.join()
            assert actor.code == grpc.StatusCode.UNAVAILABLE
        for sender in senders:
            with pytest.raises(grpc.RpcError):
                sender.call.result(timeout=WAIT_S)
        assert server.get() is None


def test_more_actors_than_allowed_are_turned_away_and_the_rest_served():
    with start_server(max_actors=1) as server, contextlib.ExitStack() as stack:
        actors = [receive(stack.enter_context(connect(server))) for _ in range(2)]
        wait_until(lambda: server.stats()["actors"] == 2)
        refused = receive(stack.enter_context(connect(server)))
        # LeRobot's channel tries a refused call five times.
        refused.join()
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        server.publish(1, 0.1, {"weight": torch.zeros(1)})
        assert all(actor.next()["version"] == 1 for actor in actors)


def test_get_without_an_episode_returns_none_in_time():
    with start_server() as server:
        started = time.monotonic()
        assert server.get(0.0) is None
        assert server.get(0.25) is None
        assert 0.2 < time.monotonic() - started < 2.0


@pytest.mark.parametrize("limit", ["max_actors", "max_message_bytes"])
def test_limits_must_be_positive(limit: str):
    with pytest.raises(ValueError, match=limit):
        start_server(**{limit: 0})


def test_the_plugins_channel_outlives_a_restarted_learner():
    stop = threading.Event()
    first = start_server()
    with first:
        port = first.port
        plain = grpc.insecure_channel(f"127.0.0.1:{port}", [*grpc_channel_options(), *RECONNECT_FAST])
        learner = LearnerChannel(plain, stop)
        stub = services_pb2_grpc.LearnerServiceStub(learner)
        outgoing: queue.Queue = queue.Queue()
        requests = iter(outgoing.get, None)
        threading.Thread(target=stub.SendTransitions, args=(requests,), daemon=True).start()
        receiving = threading.Thread(target=stub.StreamParameters, args=(services_pb2.Empty(),), daemon=True)
        receiving.start()
        first.publish(1, 0.1, {"weight": torch.zeros(1)})
        assert bytes_to_state_dict(learner.parameters.take(WAIT_S))["version"] == 1
        for chunk in chunks(message(1)):
            outgoing.put(chunk)
        assert len(first.get(WAIT_S)) == 1
    for length in (2, 3):
        for chunk in chunks(message(length)):
            outgoing.put(chunk)
    with start_server(port) as second:
        second.publish(2, 0.1, {"weight": torch.ones(1)})
        assert [len(second.get(WAIT_S)) for _ in range(2)] == [2, 3]
        assert bytes_to_state_dict(learner.parameters.take(WAIT_S))["version"] == 2
        assert second.get(0.3) is None
        stop.set()
        outgoing.put(None)
        receiving.join(WAIT_S)
        assert not receiving.is_alive()
    plain.close()
