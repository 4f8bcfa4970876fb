"""How a run stands, as anyone may ask on the learner's port."""

import contextlib
import dataclasses
import json
import time

import grpc
import pytest
from episodes import SPEC, message
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import send_bytes_in_chunks

from bridge.launch.status import StatusLine
from bridge.wire import protocol
from bridge.wire.assignment_service import Goal, _Actor
from bridge.wire.decode import decoder
from bridge.wire.protocol import MESSAGE_ID_KEY, ActorStatus, ProtocolError, Registration, Request, Status
from bridge.wire.record import FORMAT
from bridge.wire.server import LearnerServer
from pirl_jax.rollout.assignments import Assignments

STATUS = Status(
    7, 3, 10, 4, 2, 64, 12, 10, [ActorStatus("0", 250, 9, None), ActorStatus("1", 0, 0, 4)], 50, 9
)


@contextlib.contextmanager
def learner(window=8, **settings):
    assignments = Assignments(window, seed=3)
    server = LearnerServer(
        "127.0.0.1", 0, decode=decoder(SPEC), assignments=assignments, agreement={}, **settings
    )
    with server:
        line = StatusLine(f"127.0.0.1:{server.port}")
        yield server, assignments, line
        line.close()


def ask(channel, method, request):
    return channel.unary_unary(f"/{protocol.SERVICE}/{method}")(protocol.encode(request), timeout=10)


def test_a_status_arrives_as_it_was_sent():
    assert protocol.decode(Status, protocol.encode(STATUS)) == STATUS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda status: status.update(open=-1), "Status.open is out of range"),
        (lambda status: status.update(version="new"), "Status.version is str"),
        (lambda status: status.update(actors=[1]), r"Status.actors\[\] must be an object of name, silent_ms"),
        (lambda status: status.update(actors={}), "Status.actors is dict"),
        (lambda status: status["actors"][1].update(silent_ms=0.5), r"actors\[\].silent_ms is float"),
        (lambda status: status["actors"][0].update(name="a\nb"), r"actors\[\].name is not printable"),
        (lambda status: status["actors"][0].pop("episodes"), r"actors\[\] must be an object of"),
    ],
)
def test_a_status_that_is_none_is_refused(change, words):
    fields = dataclasses.asdict(STATUS)
    change(fields)
    with pytest.raises(ProtocolError, match=words):
        protocol.decode(Status, json.dumps(fields).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(number):
    """Python reads them, and nobody could send them on."""
    sent = protocol.encode(Registration("a", "b", "c", 1, {"x": 7})).replace(b"7", number.encode())
    with pytest.raises(ProtocolError, match=f"is no JSON: {number} is no number of JSON's"):
        protocol.decode(Registration, sent)


def test_the_learner_says_what_it_waits_for_and_who_plays():
    with learner(goal=Goal(updates=10, episodes=4)) as (server, assignments, line):
        before = line.ask()
        assert (before.run, before.update, before.version, before.actors) == (server.run, 0, None, [])
        assignments.publish(3, 0)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            ask(channel, protocol.REGISTER, Registration("a", "left", protocol.PACKAGE_VERSION, FORMAT, {}))
            ask(channel, protocol.REGISTER, Registration("b", "r" * 99, protocol.PACKAGE_VERSION, FORMAT, {}))
            first, _ = (json.loads(ask(channel, protocol.NEXT, Request("a", server.run, [0]))) for _ in "01")
            played = message(episode_seed=first["seed"], version=3, number=0, run=server.run)
            for _ in range(2):  # the second is the same again
                services_pb2_grpc.LearnerServiceStub(channel).SendTransitions(
                    send_bytes_in_chunks(played, services_pb2.Transition), metadata=[(MESSAGE_ID_KEY, "a-0")]
                )
            status = line.ask()
        assert (status.update, status.updates, status.version) == (2, 10, 3)
        assert (status.arrived, status.awaited, status.open, status.playing) == (1, 4, 2, 1)
        a, b = status.actors
        assert (a.name, a.episodes, a.version) == ("left", 1, 3)
        assert (b.name, b.episodes, b.version) == ("r" * 32, 0, None)
        time.sleep(0.3)
        assert 300 <= line.ask().actors[0].silent_ms < 5000


def test_episodes_that_were_dropped_or_are_of_a_later_update_are_not_there():
    assignments = Assignments(8, seed=3)
    assignments.publish(1, 0)
    given = [assignments.next("a", 1) for _ in range(6)]
    for assigned in given[:3] + given[5:]:  # 5 is beyond the four that are awaited
        assignments.deliver(assigned.number, assigned.seed)
    assert assignments.standing(4).arrived == 3
    assignments.drop(2)  # now two more are awaited, 4 and 5
    assert assignments.standing(4).arrived == 2
    assert assignments.standing(4).open == 6
    assignments.publish(2, 4)
    assert dataclasses.astuple(assignments.standing(4)) == (2, 1, 2, 2, 0, 0)


def test_where_nobody_listens_there_is_no_status():
    line = StatusLine("127.0.0.1:1")
    assert line.ask() is None
    line.close()


def test_the_longest_status_can_be_read():
    """512 actors of the longest names, in characters that JSON writes as six."""
    with learner(max_actors=400) as (server, _, line):
        actors = {str(n): _Actor("ä" * 300, 0.0, 10**6, 10**6) for n in range(800)}
        server._service._actors.update(actors)
        assert len(line.ask().actors) == 512
