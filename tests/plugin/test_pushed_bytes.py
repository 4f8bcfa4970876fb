"""What an actor receives as parameters, made to break it: almost right, with any part of it wrong."""

import io
import logging
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from fake_actor import no_stock_actor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_plugin_algorithm import FLOW_NOISE, make, push

from bridge.wire.broadcast import deserialise, serialise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of what is malformed
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
TOUCHED = []
"""Whatever a pickle of a message has run."""


def touch():
    """Be run."""
    TOUCHED.append(1)


class Malicious:
    """A pickle that runs something when it is read."""

    def __reduce__(self):
        return touch, ()


@pytest.fixture(scope="module")
def acting():
    with no_stock_actor():  # which the fixture of every test says too late for one of the whole file
        return make(noise=FLOW_NOISE).acting


def odd_tensors():
    """Tensors as torch may read them, of which most are none that a policy has."""
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    dtypes = (*floats, torch.int64, torch.int8, torch.bool)
    shapes = st.lists(st.integers(0, 4), max_size=3)
    numbers = st.sampled_from([0.0, 1.0, -1.0, 1e300, float("nan"), float("inf")])
    dense = st.builds(
        lambda shape, number, dtype: torch.full(shape, number, dtype=torch.float64).to(dtype),
        shapes,
        numbers,
        st.sampled_from((*dtypes, torch.complex64, torch.float8_e4m3fn)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        others = [
            torch.eye(3).to_sparse(),
            torch.eye(3).to_sparse_csr(),
            torch.empty(3, device="meta"),
            torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            torch.zeros(1).expand(1 << 40),
            torch.nn.Parameter(torch.ones(3)),
        ]
    return dense | st.sampled_from(others)


PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers())
ODD = odd_tensors() | PLAIN


@st.composite
def spoilt(draw, right):
    """A push some of whose parts are others, lacking or too many."""
    weights = dict(right)
    policy = dict(weights["policy"])
    for name in draw(st.lists(st.sampled_from(sorted(policy)), max_size=2, unique=True)):
        other = policy[name].to(draw(st.sampled_from([torch.float16, torch.int64, torch.float64])))
        policy[name] = draw(ODD | st.sampled_from([other, other + 1e300]))
    for name in draw(st.lists(st.sampled_from(sorted(policy)), max_size=1)):
        del policy[name]
    policy |= draw(st.dictionaries(st.text(max_size=4) | st.integers(), ODD, max_size=1))
    weights["policy"] = policy
    for name in draw(st.lists(st.sampled_from(sorted(weights)), max_size=1)):
        weights[name] = draw(ODD)
    for name in draw(st.lists(st.sampled_from(sorted(weights)), max_size=1)):
        if draw(st.booleans()):
            del weights[name]
    return draw(st.sampled_from([weights, weights, weights, list(weights), policy]))


def as_bytes(weights):
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def with_pickle(message, data):
    """A message whose archive has another pickle in it."""
    old, buffer = zipfile.ZipFile(io.BytesIO(message)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return buffer.getvalue()


@st.composite
def broken(draw, message):
    """The bytes of a message of which some are others, or that ends too early."""
    data = bytearray(message)
    # The archive's own words, and the pickle's, are at its ends: most of what is between are numbers.
    places = (
        st.integers(0, 2000) | st.integers(len(data) - 3000, len(data) - 1) | st.integers(0, len(data) - 1)
    )
    for _ in range(draw(st.integers(1, 6))):
        data[draw(places)] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.integers(0, 4)) == 0 else bytes(data)


def received(acting, message):
    """Have a message received; make sure that all of it counts, or nothing, and that a refusal is said."""
    before = {name: value.clone() for name, value in acting.tensors().items()}
    acting.version = 0
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("bridge.plugin.local")
    logger.addHandler(handler)
    try:
        acting.receive(message)
    finally:
        logger.removeHandler(handler)
    now = acting.tensors()
    if acting.version:
        assert all(torch.isfinite(value).all() for value in now.values())
        return True
    (record,) = [record for record in records if record.levelno == logging.ERROR]
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 1000
    assert all(torch.equal(now[name], value) for name, value in before.items())
    return False


@FUZZ
@given(data=st.data())
def test_a_push_counts_as_a_whole_or_changes_nothing(acting, data):
    received(acting, as_bytes(data.draw(spoilt(push(2, head_of(acting))))))


@FUZZ
@given(data=st.data())
def test_bytes_that_have_changed_on_the_way_are_refused_or_read(acting, data):
    message = serialise(9, 2, 0.05, head_of(acting))
    received(acting, data.draw(broken(message)))


def head_of(acting):
    """Return a part of what may be pushed: a small one."""
    return {n: value.clone() for n, value in acting.tensors().items() if n.startswith("noise_head.")}


def test_what_was_written_is_taken_over(acting):
    assert received(acting, serialise(9, 2, 0.05, head_of(acting)))
    assert (acting.run, acting.version, acting.noise.level) == (9, 2, 0.05)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_is_run(acting, protocol):
    message = serialise(9, 2, 0.05, head_of(acting))
    evil = pickle.dumps({"run": Malicious()}, protocol=protocol)
    for sent in (evil, with_pickle(message, evil), with_pickle(message, pickle.dumps(os.system)), b"", b"PK"):
        assert not received(acting, sent)
        with pytest.raises(ValueError, match=r"^a parameter message of \d+ bytes cannot be read: "):
            deserialise(sent)
    assert not TOUCHED
