"""Promises of the actor's channel: no episode lost, none doubled, parameters current, a quick end."""

import queue
import threading
import time
from types import SimpleNamespace

import grpc
import pytest
import torch
from fake_learner import FakeLearner
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import (
    bytes_to_state_dict,
    grpc_channel_options,
    receive_bytes_in_chunks,
    send_bytes_in_chunks,
    transitions_to_bytes,
)

from bridge.plugin.transport import LearnerChannel, open_channel


class Actor:
    """The three threads of LeRobot's actor, on a LearnerChannel."""

    def __init__(self, port):
        self.stop = threading.Event()
        plain = open_channel(f"127.0.0.1:{port}", grpc_channel_options())
        self.channel = LearnerChannel(plain, self.stop)
        self.stub = services_pb2_grpc.LearnerServiceStub(self.channel)
        self.transitions = queue.Queue()
        self.parameters = queue.Queue()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._send, self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self):
        def stream():
            while not self.stop.is_set():
                try:
                    message = self.transitions.get(timeout=0.05)
                except queue.Empty:
                    continue
                if message is None:
                    raise ValueError("Queue is closed")
                yield from send_bytes_in_chunks(message, services_pb2.Transition)

        self.stub.SendTransitions(stream())

    def _receive(self):
        stream = self.stub.StreamParameters(services_pb2.Empty())
        receive_bytes_in_chunks(stream, self.parameters, self.stop)

    def finish_episode(self, number, size=10):
        self.transitions.put(
            transitions_to_bytes([{"number": torch.tensor(number), "data": torch.zeros(size)}])
        )

    def end(self):
        self.stop.set()
        started = time.monotonic()
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads)
        return time.monotonic() - started


@pytest.fixture
def learner():
    learner = FakeLearner()
    yield learner
    learner.stop()


def numbers(episodes):
    return [int(episode[0]["number"]) for episode in episodes]


def push(learner, version, size=10):
    learner.push({"version": torch.tensor(version), "policy": {"w": torch.full((size,), float(version))}})


def receive(actor):
    return bytes_to_state_dict(actor.channel.parameters.take(20))


def test_messages_larger_than_a_grpc_message_arrive_whole_and_numbered(learner):
    actor = Actor(learner.port)
    push(learner, 1, size=2_000_000)
    for number in range(3):
        actor.finish_episode(number, size=1_500_000)
    assert numbers(learner.wait_for_episodes(3, 20)) == [0, 1, 2]
    assert len(set(learner.message_ids)) == 3
    assert receive(actor)["policy"]["w"].shape == (2_000_000,)
    assert actor.end() < 2


def test_across_a_restart_every_episode_arrives_under_one_id_and_the_parameters_are_current():
    first = FakeLearner()
    actor = Actor(first.port)
    push(first, 1)
    assert int(receive(actor)["version"]) == 1
    actor.finish_episode(0)
    first.wait_for_episodes(1, 20)
    first.stop()
    for number in range(1, 6):
        actor.finish_episode(number)
    time.sleep(1.0)
    second = FakeLearner(first.port)
    push(second, 2)
    while numbers(second.episodes)[-1:] != [5]:
        second.wait_for_episodes(len(second.episodes) + 1, 30)
    # An episode whose acknowledgement was cut off comes again, under the same id.
    ids = first.message_ids + second.message_ids
    by_id = dict(zip(ids, numbers(first.episodes + second.episodes), strict=True))
    assert list(by_id.values()) == [0, 1, 2, 3, 4, 5]
    assert int(receive(actor)["version"]) == 2
    assert actor.end() < 2
    second.stop()


def test_streams_that_open_while_the_learner_goes_away_end_all_the_same():
    """Where gRPC itself retries them, some hang in every second round and cannot even be cancelled."""
    for number in range(3):
        first = FakeLearner()
        actors = [Actor(first.port) for _ in range(8)]
        first.stop()
        for actor in actors:
            actor.finish_episode(number)
        time.sleep(1.0)
        second = FakeLearner(first.port)
        second.wait_for_episodes(len(actors), 60)
        assert max(actor.end() for actor in actors) < 5
        second.stop()


def test_an_unfinished_push_of_the_old_learner_is_forgotten():
    class Dies(FakeLearner):
        def StreamParameters(self, request, context):  # noqa: N802
            yield services_pb2.Parameters(transfer_state=services_pb2.TRANSFER_BEGIN, data=b"half of")
            yield services_pb2.Parameters(transfer_state=services_pb2.TRANSFER_MIDDLE, data=b" a message")
            context.abort(grpc.StatusCode.UNAVAILABLE, "dying")

    first = Dies()
    actor = Actor(first.port)
    time.sleep(0.5)
    first.stop()
    second = FakeLearner(first.port)
    push(second, 4)
    assert int(receive(actor)["version"]) == 4
    actor.end()
    second.stop()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_a_passing_fault_delays_an_episode_and_its_number_stays(learner, code):
    learner.refuse = [code, code]
    actor = Actor(learner.port)
    actor.finish_episode(0)
    actor.finish_episode(1)
    assert numbers(learner.wait_for_episodes(2, 20)) == [0, 1]
    assert [message_id.rsplit("-")[-1] for message_id in learner.message_ids] == ["0", "1"]
    actor.end()


@pytest.mark.parametrize(
    ("code", "times"), [(grpc.StatusCode.INVALID_ARGUMENT, 1), (grpc.StatusCode.INTERNAL, 6)]
)
def test_a_message_the_learner_keeps_refusing_does_not_block_the_next(learner, code, times, caplog):
    learner.refuse = [code] * times
    actor = Actor(learner.port)
    actor.finish_episode(0)
    actor.finish_episode(1)
    assert numbers(learner.wait_for_episodes(1, 30)) == [1]
    assert "refused a message" in caplog.text
    actor.end()


def test_a_stop_while_a_stream_is_being_opened_ends_it():
    stop, cancelled, before = threading.Event(), threading.Event(), set(threading.enumerate())

    class Call:
        def cancel(self):
            cancelled.set()

        def __iter__(self):
            assert cancelled.wait(5), "the stream was left open"
            return iter(())

    def open_call(request, metadata):
        stop.set()
        canceller.join(5)
        return Call()

    plain = SimpleNamespace(unary_stream=lambda method, **kwargs: open_call, unary_unary=lambda method: None)
    channel = LearnerChannel(plain, stop)
    (canceller,) = set(threading.enumerate()) - before
    assert list(channel.unary_stream("/StreamParameters")(None)) == []


def test_a_stop_ends_all_waiting_while_the_learner_is_away():
    learner = FakeLearner()
    actor = Actor(learner.port)
    learner.stop()
    actor.finish_episode(0)
    codes = []

    def ask():
        try:
            actor.channel.episodes.register("0", {})
        except SystemExit as stop:
            codes.append(stop.code)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.5)
    assert actor.end() < 5
    waiting.join(5)
    assert codes == [0]


def test_the_actors_natural_end_stops_everything(learner):
    actor = Actor(learner.port)
    actor.finish_episode(0)
    actor.transitions.put(None)
    for thread in actor.threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in actor.threads)
    assert numbers(learner.wait_for_episodes(1, 5)) == [0]


def test_lerobots_own_queue_gets_no_second_copy_of_the_parameters(learner):
    actor = Actor(learner.port)
    push(learner, 3)
    assert int(receive(actor)["version"]) == 3
    actor.end()
    assert actor.parameters.empty()


def test_of_parameters_that_nobody_took_the_newest_stay(learner):
    actor = Actor(learner.port)
    push(learner, 3)
    time.sleep(0.5)
    push(learner, 4)
    time.sleep(0.5)
    assert int(receive(actor)["version"]) == 4
    assert actor.channel.parameters.take(0.1) is None
    actor.end()


def test_ready_does_not_wait_for_ever():
    learner = FakeLearner()
    actor = Actor(learner.port)
    assert actor.stub.Ready(services_pb2.Empty()) == services_pb2.Empty()
    learner.stop()
    with pytest.raises(grpc.RpcError):
        actor.stub.Ready(services_pb2.Empty(), timeout=0.5)
    actor.end()
