"""No token of the environment, and a server that answers."""

import grpc
import pytest

from bridge.trust.dialer import Dialer
from bridge.trust.listener import Listener
from pirl_jax.recipe import SecurityConfig

OPEN = SecurityConfig()


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("PIRL_TOKEN", raising=False)


@pytest.fixture
def listen():
    """Serve ``test.Echo/Say``, which says what it is sent, and return the port."""
    listeners = []

    def start(security=OPEN, host="127.0.0.1", calls=20, say=lambda data, context: data):
        methods = {"Say": grpc.unary_unary_rpc_method_handler(say)}
        handler = grpc.method_handlers_generic_handler("test.Echo", methods)
        listeners.append(Listener(security, host, 0, calls, "test", "Take another."))
        return listeners[-1].open(lambda server: server.add_generic_rpc_handlers((handler,)))

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def say():
    """Call it, by way of these settings; return the answer, or the status and its words."""

    def call(target, security=OPEN, metadata=()):
        with Dialer(security).open(target) as channel:
            try:
                return channel.unary_unary("/test.Echo/Say")(b"hello", timeout=10, metadata=metadata)
            except grpc.RpcError as error:
                return error.code(), error.details()

    return call
