"""Messages of the policy server: there and back, and nothing else."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save

from bridge.wire import act, protocol
from bridge.wire.protocol import ProtocolError
from bridge.wire.spec import EpisodeSpec

SPEC = EpisodeSpec(
    image_keys=("observation.images.a", "observation.images.b"),
    image_shape=(3, 4, 5),
    num_tokens=6,
    proprio_dim=2,
    chunk_size=4,
    n_action_steps=4,
    env_action_dim=3,
    action_dim=3,
    num_latents=3,
    denoise_steps=(1,),
    max_chunks=5,
)
TOKENS = np.arange(6)
QUESTION = act.Question("an-actor", act.name_of(TOKENS), 1, (1 << 63) - 1, 4, 7, 9, True)
LATENTS = (3, 4, 3)


def observation():
    rng = np.random.default_rng(0)
    return act.Observation(
        rng.integers(0, 256, (2, 3, 4, 5), np.uint8), rng.standard_normal(2).astype(np.float32)
    )


def message(header=QUESTION, **changes):
    """A question whose arrays are changed, or left out where they are None."""
    text = np.frombuffer(header if isinstance(header, bytes) else protocol.encode(header), np.uint8)
    arrays = {act.HEADER: text, **vars(observation()), **changes}
    return save({name: array for name, array in arrays.items() if array is not None})


def test_a_question_arrives_as_it_was_put():
    for tokens in (None, TOKENS):
        data = act.encode_question(QUESTION, observation(), tokens)
        question, seen, named = act.decode_question(data, SPEC)
        assert question == QUESTION
        np.testing.assert_array_equal(seen.images, observation().images)
        np.testing.assert_array_equal(seen.proprio, observation().proprio)
        np.testing.assert_array_equal(named, tokens)


def test_an_answer_arrives_as_it_was_given():
    rng = np.random.default_rng(0)
    chunk = act.Chunk(*(rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), LATENTS, (4,))))
    answer = act.Answer(3, 9, 7, (1 << 32) - 1)
    found, seen = act.decode_answer(act.encode_answer(answer, chunk), LATENTS)
    assert found == answer
    for name, array in vars(chunk).items():
        np.testing.assert_array_equal(getattr(seen, name), array)
    with pytest.raises(ProtocolError, match="expected float32"):
        act.decode_answer(act.encode_answer(answer, chunk), (3, 5, 3))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no safetensors file"),
        (b"\xff" * 64, "no safetensors file"),
        (b"\x00" * (1 << 20), "at most"),
        (message(images=np.zeros((2, 3, 4, 6), np.uint8)), r"images is uint8 \(2, 3, 4, 6\)"),
        (message(images=np.zeros((2, 3, 4, 5), np.float32)), "at most|images is float32"),
        (message(proprio=np.zeros(2, np.float64)), "proprio is float64"),
        (message(proprio=np.array([0, np.nan], np.float32)), "proprio holds NaN"),
        (message(proprio=None), "must hold header, images, proprio"),
        (message(more=np.zeros(1, np.float32)), "must hold header, images, proprio"),
        (message(tokens=TOKENS - 1), "negative"),
        (message(tokens=TOKENS[::-1].copy()), "not those that the hash is of"),
        (message(dataclasses.replace(QUESTION, chunk=1 << 31)), "out of range"),
        (message(dataclasses.replace(QUESTION, domain_id=1 << 40)), "out of range"),
        (message(dataclasses.replace(QUESTION, version=-1)), "out of range"),
        (message(dataclasses.replace(QUESTION, version=True)), "version is bool"),
        (message(dataclasses.replace(QUESTION, noise_free=1)), "noise_free is int"),
        (message(dataclasses.replace(QUESTION, actor="a\nb")), "not printable"),
        (message(b"no JSON"), "no JSON"),
        (message(json.dumps({"actor": "a"}).encode()), "must be an object of"),
    ],
)
def test_what_is_no_question_is_refused(data, words):
    with pytest.raises(ProtocolError, match=words):
        act.decode_question(data, SPEC)


def test_noise_is_never_read_as_a_question():
    rng = np.random.default_rng(0)
    whole = bytearray(act.encode_question(QUESTION, observation(), TOKENS))
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, 400, 3):
            broken[place] = rng.integers(256)
        try:
            question, seen, _ = act.decode_question(bytes(broken[: rng.integers(len(broken))]), SPEC)
        except ProtocolError:
            continue
        assert seen.images.shape == (2, 3, 4, 5)
        assert isinstance(question, act.Question)
