"""Actors register with a learner over real gRPC, and are told what to play."""

import contextlib
import threading
import time

import grpc
import pytest

from bridge.plugin.assigned import AssignedEpisodes
from bridge.wire import assignment_service, protocol
from bridge.wire.server import LearnerServer
from pirl_jax.rollout.assignments import Assignments

AGREEMENT = {"algorithm.noise.mode": "terminal", "env.image_shape": (3, 64, 64), "frozen tensors": "ab"}


@contextlib.contextmanager
def learner(window=4, port=0, first=0, max_actors=8):
    assignments = Assignments(window, seed=3, first=first)
    server = LearnerServer(
        "127.0.0.1",
        port,
        decode=lambda message: None,
        assignments=assignments,
        agreement=AGREEMENT,
        max_actors=max_actors,
    )
    with server:
        assignments.publish(1, first)
        yield server, assignments


class Actor:
    """A client and its parameter stream."""

    def __init__(self, port, name="a", present=True):
        self.stop = threading.Event()
        self.failures = []
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_reconnect_backoff_ms", 200)])
        self.episodes = AssignedEpisodes(self.channel, name, self.stop, self._wait, lambda: None)
        if present:
            stream = self.channel.unary_stream(
                "/transport.LearnerService/StreamParameters",
                request_serializer=lambda request: b"",
            )(None, metadata=((protocol.ACTOR_KEY, name),))
            threading.Thread(target=self._drain, args=(stream,), daemon=True).start()

    def _drain(self, stream):
        with contextlib.suppress(grpc.RpcError, ValueError):
            list(stream)

    def _wait(self, reason):
        self.failures.append(reason)
        return not self.stop.wait(0.1)

    def register(self, **changes):
        self.episodes.register("name", AGREEMENT | changes)
        return self


def test_two_actors_are_given_different_episodes_of_the_newest_version():
    with learner() as (server, _):
        actors = [Actor(server.port, name).register() for name in "ab"]
        given = [actor.episodes.next() for actor in actors * 2]
        assert [assigned.number for assigned in given] == [0, 1, 2, 3]
        assert {assigned.version for assigned in given} == {1}
        assert actors[0].episodes.current.number == 2
        assert actors[0].episodes.run == server.run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"algorithm.noise.mode": "flow_sde"},
            'algorithm.noise.mode is "flow_sde" and the learner\'s is "terminal"',
        ),
        ({"frozen tensors": "cd"}, 'frozen tensors is "cd" and the learner\'s is "ab"'),
        ({"env.image_shape": [3, 32, 64]}, "env.image_shape is [3, 32, 64]"),
        ({"env.gym_id": "Coin-v0"}, 'env.gym_id is "Coin-v0" and the learner\'s is not set'),
    ],
)
def test_an_actor_that_would_play_something_else_is_refused_and_told_what(changes, words):
    with learner() as (server, assignments):
        with pytest.raises(SystemExit) as caught:
            Actor(server.port).register(**changes)
        assert str(caught.value.code).startswith("error: the learner refused this actor: The actor's ")
        assert words in str(caught.value.code)
        assert "from one config and one checkpoint" in str(caught.value.code)
        assert assignments.playing == 0


@pytest.mark.parametrize(("package", "row_format"), [("0.0.9", 2), (protocol.PACKAGE_VERSION, 1)])
def test_an_actor_of_another_release_is_told_so(package, row_format):
    registration = protocol.Registration("a", "name", package, row_format, AGREEMENT)
    with learner() as (server, _), grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/pirl.Assignments/Register")(protocol.encode(registration), timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"The actor has pirl-jax {package} (row format {row_format}), the learner " in (
            caught.value.details()
        )
        assert "Install one version on both sides." in caught.value.details()


def test_a_learner_that_assigns_nothing_is_named():
    with contextlib.closing(grpc.insecure_channel("127.0.0.1:1")):
        from concurrent.futures import ThreadPoolExecutor

        server = grpc.server(ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with pytest.raises(SystemExit) as caught:
            Actor(port, present=False).register()
        server.stop(None)
        assert "assigns no episodes" in str(caught.value.code)


def test_an_actor_waits_while_no_episode_may_start_and_stops_waiting_when_told():
    with learner(window=1) as (server, _):
        actor = Actor(server.port).register()
        actor.episodes.next()
        codes = []

        def ask():
            try:
                actor.episodes.next()
            except SystemExit as stop:
                codes.append(stop.code)

        waiting = threading.Thread(target=ask)
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive()
        actor.stop.set()
        waiting.join(5)  # the learner is there, and lets a request wait for twice as long
        assert codes == [0]


def test_what_an_actor_no_longer_holds_is_played_again():
    """It gave up to send the first, or the assignment never arrived; the second waits to be acknowledged."""
    with learner() as (server, _):
        actor = Actor(server.port).register()
        assert [actor.episodes.next().number for _ in range(2)] == [0, 1]
        actor.episodes.acknowledged()
        assert actor.episodes.next().number == 0
        assert actor.episodes.next().number == 2


def test_the_episode_of_an_actor_that_vanished_goes_to_another(monkeypatch):
    monkeypatch.setattr(assignment_service, "GRACE_S", 0.5)
    with learner() as (server, _):
        gone = Actor(server.port, "gone").register()
        assert gone.episodes.next().number == 0
        stays = Actor(server.port, "stays").register()
        assert stays.episodes.next().number == 1
        time.sleep(1.0)  # playing: no word of either, but their streams are open
        assert stays.episodes.next().number == 2
        gone.channel.close()
        time.sleep(1.0)
        assert stays.episodes.next().number == 0
        assert server.stats()["playing"] == 3


def test_a_restarted_learner_is_registered_with_anew():
    with learner() as (server, _):
        port = server.port
        actor = Actor(port).register()
        first = actor.episodes.next(), actor.episodes.run
    with learner(port=port, first=4) as (server, _):
        second = actor.episodes.next(), actor.episodes.run
    assert (first[0].number, second[0].number) == (0, 4)
    assert first[1] != second[1]


def test_no_more_actors_register_than_are_served(monkeypatch):
    monkeypatch.setattr(assignment_service, "GRACE_S", 0.2)
    with learner(max_actors=1) as (server, _):
        for name in "ab":
            Actor(server.port, name, present=False).register()
        late = Actor(server.port, "c", present=False)
        late.register()  # once the first two, who never opened a stream, are forgotten
        assert "RESOURCE_EXHAUSTED The learner serves 2 actors." in late.failures


@pytest.mark.parametrize(
    ("method", "data", "words"),
    [
        ("Next", b"{", "no JSON"),
        ("Next", b"[]", "must be an object of actor, run, holds"),
        ("Next", b'{"actor": "a", "run": 1}', "must be an object"),
        ("Next", b'{"actor": 1, "run": 1, "holds": []}', "actor is int"),
        ("Next", b'{"actor": "a", "run": -1, "holds": []}', "out of range"),
        ("Next", b'{"actor": "a", "run": 1, "holds": ["x"]}', "holds[] is str"),
        ("Next", b'{"actor": "a", "run": true, "holds": []}', "run is bool"),
        ("Next", b" " * (1 << 18) + b"{}", "at most"),
        ("Next", b"[" * 100_000, "no JSON"),
        (
            "Register",
            b'{"actor": "' + b"a" * 300 + b'", "name": "", "package": "", "row_format": 1, "agreement": {}}',
            "over 256 characters",
        ),
        ("Next", b'{"actor": "a\\nb", "run": 1, "holds": []}', "actor is not printable"),
        (
            "Register",
            b'{"actor": "a", "name": "", "package": "", "row_format": 1, "agreement": {"\\ud800": 1}}',
            "a name in Registration.agreement is not printable",
        ),
    ],
)
def test_what_is_no_proper_message_is_refused(method, data, words):
    with learner() as (server, _), grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{protocol.SERVICE}/{method}")(data, timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in caught.value.details()


def test_an_actor_that_plays_says_so_without_waiting_and_not_at_every_chunk(monkeypatch):
    with learner() as (server, _):
        actor = Actor(server.port).register()
        time.sleep(0.5)
        first, silent = server._service._actors["a"].seen, server._service.status().actors[0].silent_ms
        assert silent >= 400
        actor.episodes.say_alive()
        deadline = time.monotonic() + 10
        while (seen := server._service._actors["a"].seen) == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        actor.episodes.say_alive()
        time.sleep(0.3)
        assert server._service._actors["a"].seen == seen
        actor.stop.set()


def test_saying_so_to_a_learner_that_is_gone_does_no_harm():
    Actor(1, present=False).episodes.say_alive()


def test_an_actor_that_never_registered_gets_nothing():
    with learner() as (server, _), grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        request = protocol.encode(protocol.Request("a", server.run, []))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{protocol.SERVICE}/Next")(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
