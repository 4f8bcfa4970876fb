"""Messages that were made to break their readers: almost right, with any part of them wrong."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from test_act import LATENTS, QUESTION, SPEC, TOKENS, observation

from bridge.trust.dialer import Dialer
from bridge.wire import act, protocol
from bridge.wire.act_service import ActService
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.protocol import PACKAGE_VERSION, ProtocolError
from bridge.wire.record import FORMAT
from bridge.wire.server import LearnerServer
from pirl_jax.rollout.assignments import Assignments
from pirl_jax.serving.acting import Acted
from pirl_jax.serving.batching import Batcher

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
RIGHT = {
    protocol.REGISTER: protocol.Registration("a", "name", PACKAGE_VERSION, FORMAT, {"noise": 1}),
    protocol.OFFER: protocol.Offer("s", "127.0.0.1:1", PACKAGE_VERSION, FORMAT, {"noise": 1}),
    protocol.NEXT: protocol.Request("a", 1, [3, 4]),
    protocol.ALIVE: protocol.Alive("a"),
}
OTHERS = (
    protocol.Registered(3, ""),
    protocol.Offered(3),
    protocol.Reply(1, 2, 3, 4, 5, 6),
    protocol.Status(7, 3, 10, 4, 2, 64, 12, 10, [protocol.ActorStatus("0", 250, 9, None)], 50, 9),
)


@st.composite
def almost(draw, message):
    """The message's bytes with some fields of other values, fields too many or too few, or cut off."""
    fields = json.loads(protocol.encode(message))
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)):
        fields[name] = draw(JSON)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=1)):
        del fields[name]
    fields |= draw(st.dictionaries(st.text(max_size=5), JSON, max_size=1))
    data = json.dumps(fields).encode()
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


@FUZZ
@given(st.data())
def test_what_is_read_is_what_was_sent_and_all_else_is_refused(data):
    message = data.draw(st.sampled_from((*RIGHT.values(), *OTHERS)))
    sent = data.draw(almost(message))
    try:
        read = protocol.decode(type(message), sent)
    except ProtocolError:
        return
    assert json.loads(protocol.encode(read)) == json.loads(sent)


@pytest.fixture(scope="module")
def channel():
    servers = PolicyServers({"noise": 1})
    assignments = Assignments(4, seed=3)
    with (
        LearnerServer(
            "127.0.0.1",
            0,
            decode=lambda message: None,
            assignments=assignments,
            agreement={"noise": 1},
            policy_servers=servers,
        ) as server,
        Dialer().open(f"127.0.0.1:{server.port}") as channel,
    ):
        yield channel


ANSWERS = {
    grpc.StatusCode.OK,
    *(grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND),
    *(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED),
}
"""Of a service that has understood what is wrong; UNKNOWN is that of an exception which nobody foresaw."""


@FUZZ
@given(data=st.data())
def test_the_assignment_service_has_an_answer_to_everything(channel, data):
    method = data.draw(st.sampled_from(sorted(RIGHT)))
    sent = data.draw(almost(RIGHT[method]))
    call = channel.unary_unary(f"/{protocol.SERVICE}/{method}").future(sent, timeout=20)
    assert call.code() in ANSWERS, call.details()


DTYPES = (np.uint8, np.int64, np.float32, np.float16, np.bool_, np.float64)


@st.composite
def almost_a_question(draw):
    """A safetensors file with arrays of other types and shapes, or bytes that are another's."""
    arrays = {**vars(observation()), "tokens": TOKENS}
    header = draw(almost(QUESTION)) if draw(st.booleans()) else protocol.encode(QUESTION)
    arrays[act.HEADER] = np.frombuffer(header, np.uint8)
    for name in draw(st.lists(st.sampled_from(sorted(arrays)), max_size=2)):
        shape = draw(st.lists(st.integers(0, 6), max_size=4))
        arrays[name] = np.full(shape, draw(st.integers(-2, 2))).astype(draw(st.sampled_from(DTYPES)))
    for name in draw(st.lists(st.sampled_from(sorted(arrays)), max_size=1)):
        del arrays[name]
    data = bytearray(save(arrays))
    if draw(st.integers(0, 3)) == 0:
        for _ in range(draw(st.integers(1, 4))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 9)) == 0 else bytes(data)


@FUZZ
@given(almost_a_question())
def test_a_question_is_of_the_specs_sizes_or_refused(sent):
    try:
        question, seen, tokens = act.decode_question(sent, SPEC)
    except ProtocolError:
        return
    assert (seen.images.dtype, seen.images.shape) == (np.uint8, (2, *SPEC.image_shape))
    assert (seen.proprio.dtype, seen.proprio.shape) == (np.float32, (SPEC.proprio_dim,))
    assert np.isfinite(seen.proprio).all()
    assert tokens is None or act.name_of(tokens) == question.tokens
    assert all(isinstance(getattr(question, each.name), int | str) for each in dataclasses.fields(question))


@FUZZ
@given(almost_a_question())
def test_a_question_is_no_answer(sent):
    with pytest.raises(ProtocolError):
        act.decode_answer(sent, LATENTS)


class Policy:
    """Chooses noughts, out of what it is asked as the policy's programs take it; acts with every version."""

    acts = 7, 9

    def wait_for(self, ready, timeout):
        ready(*self.acts)
        return True

    def answer(self, asked):
        for each in asked:
            np.array([each.domain_id, each.chunk], np.int32)
            np.array([each.noise_key], np.uint64)
            assert each.tokens.shape == TOKENS.shape
        noughts = np.zeros(LATENTS, np.float32)
        return [Acted(noughts[0], noughts, noughts[0, :, 0], 1, *self.acts, 0) for _ in asked]


@pytest.fixture(scope="module")
def policy_server():
    policy = Policy()
    policy.acting, policy.batcher = policy, Batcher(policy.answer, 2, 0.0)
    stopping, server = threading.Event(), grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((ActService(policy, SPEC, lambda: 7, stopping, 8).handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with policy.batcher, Dialer().open(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary(f"/{act.SERVICE}/{act.ACT}")
        stopping.set()
        server.stop(0.2).wait()


@FUZZ
@given(almost_a_question())
def test_the_policy_server_has_an_answer_to_everything(policy_server, sent):
    call = policy_server.future(sent, timeout=20)
    assert call.code() in ANSWERS, call.details()
    if call.code() is grpc.StatusCode.OK:
        answer, _ = act.decode_answer(call.result(), LATENTS)
        assert (answer.run, answer.version) == Policy.acts


def test_and_then_still_answers_an_honest_question(policy_server):
    policy_server(act.encode_question(QUESTION, observation(), TOKENS), timeout=20)
