"""The actor's connection: around proxies that do not know the learner, and out of one that is dead."""

import socket
import threading
import time

import pytest
from fake_learner import FakeLearner
from test_plugin_transport import Actor, numbers, push, receive

from bridge.plugin import transport


class Relay:
    """A TCP port before a learner's; ``freeze`` leaves its connections open and carries nothing any more."""

    def __init__(self, port):
        self._target, self._frozen = port, set()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self):
        self._frozen |= self._open

    def close(self):
        self._listener.close()
        for end in self._open:
            end.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(65536):
                if source in self._frozen:
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_a_connection_that_carries_nothing_any_more_is_replaced():
    learner = FakeLearner()
    relay = Relay(learner.port)
    actor = Actor(relay.port)
    push(learner, 1)
    assert int(receive(actor)["version"]) == 1
    relay.freeze()
    started = time.monotonic()
    push(learner, 2)
    actor.finish_episode(5)
    assert numbers(learner.wait_for_episodes(1, 45)) == [5]
    assert int(receive(actor)["version"]) == 2
    assert time.monotonic() - started < 45  # a message's own deadline is a minute
    actor.end()
    relay.close()
    learner.stop()


def test_a_proxy_of_the_environment_is_not_asked_for_a_learner_nearby(monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    learner = FakeLearner()
    actor = Actor(learner.port)
    push(learner, 1)
    assert int(receive(actor)["version"]) == 1
    actor.end()
    learner.stop()


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("192.168.3.4:50051", True),
        ("10.0.0.9:1", True),
        ("8.8.8.8:50051", False),
        ("no.such.host.invalid:1", False),
    ],
)
def test_which_learners_are_nearby(target, near):
    assert transport.is_near(target) == near
