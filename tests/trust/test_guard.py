"""Who is let in, what those who are not can do, and that nobody takes the server from the others."""

import logging
import queue
import threading
import time
from collections.abc import Iterator

import grpc
import psutil
import pytest
from certificates import TOKEN, token_file
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lerobot.transport import services_pb2, services_pb2_grpc

from bridge.trust.dialer import Dialer
from bridge.trust.guard import host_of
from bridge.wire import act, protocol
from bridge.wire.server import LearnerServer
from pirl_jax.recipe import SecurityConfig
from pirl_jax.rollout.assignments import Assignments

WRONG = "a-token-of-another-run-altogether"


def learner(security, host="127.0.0.1", **settings):
    assignments, none = Assignments(4, seed=3), lambda message: None
    return LearnerServer(
        host, 0, decode=none, assignments=assignments, agreement={}, security=security, **settings
    )


class Policy:
    """Acts for whoever gets through."""

    def __init__(self, *_):
        pass

    def handler(self):
        methods = {act.ACT: grpc.unary_unary_rpc_method_handler(lambda data, context: b"acted")}
        return grpc.method_handlers_generic_handler(act.SERVICE, methods)


def every_call(channel, metadata):
    """Make a call of every method on the learner's port; return the outcomes by name."""
    stub, empty = services_pb2_grpc.LearnerServiceStub(channel), services_pb2.Empty()
    watched = health_pb2_grpc.HealthStub(channel)
    rest = {"timeout": 10, "metadata": metadata}
    calls = {
        "Ready": lambda: stub.Ready(empty, **rest),
        "StreamParameters": lambda: stub.StreamParameters(empty, **rest),
        "SendTransitions": lambda: stub.SendTransitions(iter(()), **rest),
        "SendInteractions": lambda: stub.SendInteractions(iter(()), **rest),
        "Watch": lambda: watched.Watch(health_pb2.HealthCheckRequest(), **rest),
        "NoSuchMethod": lambda: channel.unary_unary("/x.Y/Z")(b"", **rest),
        act.ACT: lambda: channel.unary_unary(f"/{act.SERVICE}/{act.ACT}")(b"", **rest),
    }
    for name in (protocol.REGISTER, protocol.NEXT, protocol.ALIVE, protocol.OFFER, protocol.STATUS):
        path = f"/{protocol.SERVICE}/{name}"
        calls[name] = lambda path=path: channel.unary_unary(path)(b"{}", **rest)
    found = {}
    for name, call in calls.items():
        try:
            answer = call()
            found[name] = next(answer) if isinstance(answer, Iterator) else answer
        except grpc.RpcError as error:
            found[name] = error.code()
    return found


SHOWN = {
    "none": (),
    "another": [("authorization", f"Bearer {WRONG}")],
    "one more character": [("authorization", f"Bearer {TOKEN}x")],
    "one less": [("authorization", f"Bearer {TOKEN[:-1]}")],
    "without its scheme": [("authorization", TOKEN)],
    "twice, once rightly": [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {WRONG}")],
    "under another name": [("token", TOKEN)],
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_without_the_token_every_method_of_every_service_is_refused(tmp_path, shown):
    security = SecurityConfig(token_file=token_file(tmp_path))
    with learner(security, policy=Policy) as server, Dialer().open(f"127.0.0.1:{server.port}") as channel:
        assert set(every_call(channel, shown).values()) == {grpc.StatusCode.UNAUTHENTICATED}


def test_with_the_token_each_answers_as_without_any_security(tmp_path):
    found = []
    for security in (SecurityConfig(), SecurityConfig(token_file=token_file(tmp_path))):
        with learner(security, policy=Policy) as server:
            server.publish(1, 0.5, {})
            with Dialer(security).open(f"127.0.0.1:{server.port}") as channel:
                outcomes = every_call(channel, ())
        status = protocol.decode(protocol.Status, outcomes.pop(protocol.STATUS))
        assert status.run == server.run
        found.append(outcomes)
    assert found[0] == found[1]
    assert found[0]["NoSuchMethod"] is grpc.StatusCode.UNIMPLEMENTED
    assert found[0]["Act"] == b"acted"


def test_anyone_may_ask_whether_it_is_there(tmp_path):
    security = SecurityConfig(token_file=token_file(tmp_path))
    with learner(security) as server, Dialer().open(f"127.0.0.1:{server.port}") as channel:
        stub, ask = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest
        assert stub.Check(ask(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            stub.Check(ask(service="no.such"), timeout=10)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_ten_thousand_wrong_tokens_are_refused_in_bounded_memory_and_two_lines(tmp_path, listen, say, caplog):
    security = SecurityConfig(token_file=token_file(tmp_path))
    port = listen(security)
    with Dialer().open(f"127.0.0.1:{port}") as channel, caplog.at_level(logging.WARNING):
        call = channel.unary_unary("/test.Echo/Say")

        def guess(numbers):
            for first in numbers[::10]:
                shown = [f"Bearer guess-{number:012}" for number in range(first, first + 10)]
                pending = [call.future(bytes(1000), metadata=[("authorization", each)]) for each in shown]
                assert {each.code() for each in pending} == {grpc.StatusCode.UNAUTHENTICATED}

        started = time.monotonic()
        guess(range(1000))
        process = psutil.Process()
        before = process.memory_info().rss
        guess(range(1000, 10_000))
        grown = process.memory_info().rss - before
    assert grown < 32 * 2**20, f"{grown / 9000:.0f} bytes a refusal are kept"
    seconds = time.monotonic() - started
    lines = [line for line in caplog.messages if line.startswith("Refused ")]
    assert 1 <= len(lines) <= 2 + seconds / 60
    assert "guess-" not in caplog.text
    assert say(f"127.0.0.1:{port}", security) == b"hello"


def hold(stub, count):
    """Open calls that never end."""
    return [stub.SendTransitions.future(iter(queue.Queue().get, None)) for _ in range(count)]


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ready(channel):
    return services_pb2_grpc.LearnerServiceStub(channel).Ready(services_pb2.Empty(), timeout=5)


def test_a_client_with_a_hundred_streams_leaves_room_for_another():
    with learner(SecurityConfig(), max_actors=4) as server:
        address = f"127.0.0.1:{server.port}"
        with Dialer().open(address) as greedy, Dialer().open(address) as modest:
            streams = hold(services_pb2_grpc.LearnerServiceStub(greedy), 100)
            time.sleep(0.5)
            assert ready(modest) == services_pb2.Empty()
            assert sum(not stream.done() for stream in streams) == 100  # most of them wait at the client
            for stream in streams:
                stream.cancel()


def test_a_host_with_many_connections_leaves_room_for_another_host():
    with learner(SecurityConfig(insecure=True), host="[::]", max_actors=2) as server:
        channels = [Dialer().open(f"[::1]:{server.port}") for _ in range(20)]
        stubs = [services_pb2_grpc.LearnerServiceStub(channel) for channel in channels]
        streams = [stream for stub in stubs for stream in hold(stub, 5)]
        wait_until(lambda: sum(stream.done() for stream in streams) == 80)
        refused = [stream for stream in streams if stream.done()]
        assert {stream.code() for stream in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "::1 has as many calls open as one host may have" in refused[0].details()
        with Dialer().open(f"127.0.0.1:{server.port}") as other:
            assert ready(other) == services_pb2.Empty()
        for channel in channels:
            channel.close()


def test_health_checks_of_the_uninvited_that_never_end_hold_no_more_than_a_few_threads(tmp_path):
    security = SecurityConfig(token_file=token_file(tmp_path))
    with learner(security, max_actors=1) as server:
        address = f"127.0.0.1:{server.port}"
        with Dialer().open(address) as uninvited, Dialer(security).open(address) as actor:
            check = uninvited.stream_unary(
                "/grpc.health.v1.Health/Check", request_serializer=lambda each: each
            )
            asked = [check.future(iter(queue.Queue().get, None)) for _ in range(30)]
            wait_until(lambda: sum(not each.done() for each in asked) == 8)
            assert ready(actor) == services_pb2.Empty()
            wait_until(lambda: all(each.done() for each in asked))


def test_a_host_that_sends_too_fast_is_read_later_and_others_are_not(listen, say):
    security = SecurityConfig(max_messages_per_s=20, insecure=True)
    port = listen(security, "[::]", calls=40)
    with Dialer().open(f"[::1]:{port}") as fast:
        call = fast.unary_unary("/test.Echo/Say")
        started = time.monotonic()
        pending = [call.future(b"x") for _ in range(32)]
        threading.Thread(target=lambda: [each.result() for each in pending], daemon=True).start()
        assert say(f"127.0.0.1:{port}") == b"hello"
        assert time.monotonic() - started < 0.5
        assert {each.result() for each in pending[:20]} == {b"x"}
        assert all(each.result() == b"x" for each in pending)
        assert time.monotonic() - started > 32 / 20 - 1 - 0.1


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:50000", "10.0.0.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::1%eth0"),
        ("ipv6:[::1]:50000", "::1"),
        ("unix:learner", "unix:learner"),
    ],
)
def test_the_host_of_a_peer(peer, host):
    assert host_of(peer) == host
