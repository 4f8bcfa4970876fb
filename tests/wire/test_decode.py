"""A transition message is either a checked episode or a TransitionError, whatever its bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from episodes import SPEC, message, record, transitions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot.transport.utils import transitions_to_bytes

from bridge.wire.archive import TransitionError
from bridge.wire.decode import decode_episode
from bridge.wire.record import pack, unpack
from bridge.wire.spec import EpisodeSpec
from pirl_jax.rollout.evaluation import FIRST_NUMBER

LAST = -1


def reason_of(episode: list | dict | bytes) -> str:
    data = episode if isinstance(episode, bytes) else transitions_to_bytes(episode)
    with pytest.raises(TransitionError) as caught:
        decode_episode(data, SPEC)
    assert str(caught.value)
    return caught.value.reason


def repacked(transition: dict, **changes) -> torch.Tensor:
    old = unpack(transition["action"].numpy())
    return torch.from_numpy(pack(dataclasses.replace(old, **changes)))[None]


def test_an_episode_arrives_bit_for_bit():
    sent = transitions(3)
    episode = decode_episode(transitions_to_bytes(sent), SPEC)
    records = [unpack(transition["action"].numpy()) for transition in sent]
    states = [transition["state"] for transition in sent] + [sent[LAST]["next_state"]]
    assert len(episode) == 3
    assert len(episode.observations) == 4
    np.testing.assert_array_equal(episode.latents, [r.latents for r in records])
    np.testing.assert_array_equal(episode.log_prob, [r.log_prob for r in records])
    np.testing.assert_array_equal(episode.denoise_step, [1, 1, 1])
    np.testing.assert_array_equal(episode.executed, [3, 3, 1])
    np.testing.assert_array_equal(episode.reward, [0, 0, 1])
    np.testing.assert_array_equal(episode.version, [7, 7, 7])
    np.testing.assert_array_equal(episode.feature_key, [0, 0, 0])
    assert (episode.terminated, episode.truncated, episode.success) == (True, False, True)
    for v, key in enumerate(SPEC.image_keys):
        np.testing.assert_array_equal(episode.observations.images[:, v], torch.cat([s[key] for s in states]))
    np.testing.assert_array_equal(
        episode.observations.proprio, torch.cat([s["observation.state"] for s in states])
    )
    np.testing.assert_array_equal(
        episode.observations.tokens, torch.cat([s["observation.language.tokens"] for s in states])
    )
    np.testing.assert_array_equal(episode.observations.domain_id, [3] * 4)


def test_a_truncated_episode_is_not_a_terminated_one():
    episode = decode_episode(message(2, truncated=True), SPEC)
    assert (episode.terminated, episode.truncated, episode.success) == (False, True, False)


def test_a_flat_row_and_a_nested_domain_id_and_tensor_flags_are_taken():
    sent = transitions(1)
    sent[0]["action"] = sent[0]["action"][0]
    for state in (sent[0]["state"], sent[0]["next_state"]):
        state["observation.domain_id"] = torch.tensor([[3]])
    sent[0] |= {"reward": torch.tensor(1.0), "done": torch.tensor([True]), "truncated": torch.tensor(False)}
    episode = decode_episode(transitions_to_bytes(sent), SPEC)
    np.testing.assert_array_equal(episode.observations.domain_id, [3, 3])
    assert episode.terminated


def test_without_proprioception_the_state_is_not_read():
    sent = transitions(1)
    del sent[0]["state"]["observation.state"]
    episode = decode_episode(transitions_to_bytes(sent), dataclasses.replace(SPEC, proprio_dim=0))
    assert episode.observations.proprio.shape == (2, 0)


def test_decoding_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_episode(message(), SPEC)


def drop_key(t: list, key: str) -> None:
    del t[1][key]


def set_state(t: list, key: str, value: torch.Tensor) -> None:
    t[1]["state"][key] = value


def set_penalty(t: list, *numbers: float) -> None:
    t[1]["complementary_info"]["discrete_penalty"] = torch.tensor([numbers], dtype=torch.float32)


def flip_a_bit(t: list) -> None:
    t[1]["action"].view(torch.int32)[0, 40] ^= 1


def poison_row(t: list) -> None:
    t[1]["action"][0, 40] = float("nan")


def test_an_episode_that_outlived_its_learner_is_no_learners():
    """Its first chunks are of one process, the last of whatever the next one's parameters chose."""
    sent = transitions(3, run=5)
    sent[LAST]["action"] = repacked(sent[LAST], run=0, version=2)
    assert decode_episode(transitions_to_bytes(sent), SPEC).run == 0
    sent[LAST]["action"] = repacked(sent[LAST], run=6, version=7)
    assert reason_of(sent) == "number"


def test_versions_and_feature_keys_of_the_chunks_are_kept():
    sent = transitions(3)
    for transition, version, key in zip(sent, (7, 7, 9), (0, (1 << 32) - 1, 5)):
        transition["action"] = repacked(transition, version=version, feature_key=key)
    episode = decode_episode(transitions_to_bytes(sent), SPEC)
    np.testing.assert_array_equal(episode.version, [7, 7, 9])
    np.testing.assert_array_equal(episode.feature_key, [0, (1 << 32) - 1, 5])


IMAGE, STATE, TOKENS = "observation.images.front", "observation.state", "observation.language.tokens"

BAD = {
    "nan in the state": ("nan", lambda t: set_state(t, STATE, torch.full((1, 3), torch.nan))),
    "infinite state": ("nan", lambda t: t[LAST]["next_state"][STATE].fill_(torch.inf)),
    "nan in the row": ("nan", poison_row),
    "nan reward": ("nan", lambda t: t[1].update(reward=float("nan"))),
    "nan step reward": ("nan", lambda t: set_penalty(t, 3, 0, 0, 0, 0, -1, 0, 0, float("nan"))),
    "nan executed": ("nan", lambda t: set_penalty(t, float("nan"), 0, 0, 0, 0, -1, 0, 0, 0)),
    "a reward that float32 cannot hold": (
        "nan",
        lambda t: (set_penalty(t, 2, 0, 0, 0, 0, -1, 3.4e38, 3.4e38), t[1].update(reward=6.8e38)),
    ),
    "huge reward": ("nan", lambda t: t[1].update(reward=10**400)),
    "row changed on its way": ("record", flip_a_bit),
    "short row": ("shape", lambda t: t[1].update(action=t[1]["action"][:, :-1].clone())),
    "endless row": ("shape", lambda t: t[1].update(action=torch.zeros(1).expand(1, 1 << 40))),
    "foreign row": ("record", lambda t: t[1].update(action=torch.zeros_like(t[1]["action"]))),
    "double row": ("type", lambda t: t[1].update(action=t[1]["action"].double())),
    "step beyond K": ("record", lambda t: t[1].update(action=repacked(t[1], denoise_step=6))),
    "a step never noised": ("record", lambda t: t[1].update(action=repacked(t[1], denoise_step=3))),
    "step zero": ("record", lambda t: t[1].update(action=repacked(t[1], denoise_step=0))),
    "version falls": ("version", lambda t: t[1].update(action=repacked(t[1], version=6))),
    "version rises and falls": ("version", lambda t: t[1].update(action=repacked(t[1], version=8))),
    "nothing executed": ("executed", lambda t: set_penalty(t, 0, 0, 0, 0, 0, -1)),
    "too much executed": ("executed", lambda t: set_penalty(t, 4, 0, 0, 0, 0, -1, 0, 0, 0)),
    "half a step executed": ("executed", lambda t: set_penalty(t, 1.5, 0, 0, 0, 0, -1, 0)),
    "a reward is missing": ("executed", lambda t: set_penalty(t, 3, 0, 0, 0, 0, -1, 0, 0)),
    "rewards do not add up": ("reward", lambda t: set_penalty(t, 3, 0, 0, 0, 0, -1, 1, 0, 0)),
    "half a success": ("type", lambda t: set_penalty(t, 3, 0.5, 0, 0, 0, -1, 0, 0, 0)),
    "half a seed": ("type", lambda t: set_penalty(t, 3, 0, 0.5, 0, 0, -1, 0, 0, 0)),
    "a seed of more than 32 bits": ("type", lambda t: set_penalty(t, 3, 0, 0, 65536, 0, -1, 0, 0, 0)),
    "no such task": ("task", lambda t: set_penalty(t, 3, 0, 0, 0, 1, -1, 0, 0, 0)),
    "half a task": ("task", lambda t: set_penalty(t, 3, 0, 0, 0, 0.5, -1, 0, 0, 0)),
    "stock penalty": ("shape", lambda t: set_penalty(t, 0.0)),
    "endless penalty": (
        "shape",
        lambda t: t[1]["complementary_info"].update(discrete_penalty=torch.zeros(1).expand(1 << 40)),
    ),
    "done in the middle": ("boundary", lambda t: t[1].update(done=True)),
    "truncated in the middle": ("boundary", lambda t: t[1].update(truncated=True)),
    "no end": ("boundary", lambda t: t[LAST].update(done=False)),
    "both ends": ("boundary", lambda t: t[LAST].update(truncated=True)),
    "done is a fraction": ("type", lambda t: t[1].update(done=0.5)),
    "done is text": ("type", lambda t: t[1].update(done="yes")),
    "float image": ("type", lambda t: set_state(t, IMAGE, torch.zeros(1, 3, 6, 5))),
    "small image": ("shape", lambda t: set_state(t, IMAGE, torch.zeros(1, 3, 6, 4, dtype=torch.uint8))),
    "two images": ("shape", lambda t: set_state(t, IMAGE, torch.zeros(2, 3, 6, 5, dtype=torch.uint8))),
    "endless image": (
        "shape",
        lambda t: set_state(t, IMAGE, torch.zeros(1, dtype=torch.uint8).expand(1, 3, 1 << 20, 1 << 20)),
    ),
    "negative token": ("type", lambda t: set_state(t, TOKENS, torch.full((1, 4), -1))),
    "int32 tokens": ("type", lambda t: set_state(t, TOKENS, torch.zeros(1, 4, dtype=torch.int32))),
    "image is text": ("type", lambda t: set_state(t, IMAGE, "front")),
    "sparse state": ("undecodable", lambda t: set_state(t, STATE, torch.zeros(1, 3).to_sparse())),
    "meta state": ("undecodable", lambda t: set_state(t, STATE, torch.zeros(1, 3, device="meta"))),
    "image missing": ("missing", lambda t: t[1]["state"].pop(IMAGE)),
    "action missing": ("missing", lambda t: drop_key(t, "action")),
    "reward missing": ("missing", lambda t: drop_key(t, "reward")),
    "state missing": ("missing", lambda t: drop_key(t, "state")),
    "info missing": ("missing", lambda t: t[1].update(complementary_info=None)),
    "transition is no dict": ("type", lambda t: t.insert(1, [])),
    "empty": ("empty", lambda t: t.clear()),
    "too long": ("too_long", lambda t: t.extend(transitions(4))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_transition_is_refused_with_its_reason(name: str):
    reason, spoil = BAD[name]
    episode = transitions(3, run=5)  # 0 is nobody's, of whom nothing is asked
    spoil(episode)
    assert reason_of(episode) == reason


def test_what_is_evaluated_has_no_noise_and_what_is_learned_from_has():
    evaluation = {"number": FIRST_NUMBER + 3, "run": 5}
    episode = decode_episode(message(denoise_step=0, **evaluation), SPEC)
    assert episode.number == FIRST_NUMBER + 3
    assert not episode.denoise_step.any()
    for noisy in (message(denoise_step=1, **evaluation), message(denoise_step=0, number=3, run=5)):
        with pytest.raises(TransitionError, match="denoise_step must be one of") as caught:
            decode_episode(noisy, SPEC)
        assert caught.value.reason == "record"


def test_an_episode_carries_the_name_of_its_task():
    spec = dataclasses.replace(SPEC, task_names=("stack_0", "stack_1"))
    episode = transitions(3)
    for transition in episode:
        transition["complementary_info"]["discrete_penalty"][0, 4] = 1
    assert decode_episode(transitions_to_bytes(episode), spec).task == "stack_1"
    episode[1]["complementary_info"]["discrete_penalty"][0, 4] = 0
    with pytest.raises(TransitionError, match="changed within"):
        decode_episode(transitions_to_bytes(episode), spec)
    assert decode_episode(message(), SPEC).task == ""


def test_an_episode_carries_its_seed():
    assert decode_episode(message(), SPEC).seed == 17 + (4 << 16)


def test_a_message_longer_than_any_episode_is_not_even_read():
    assert reason_of(b"\0" * (SPEC.max_message_bytes + 1)) == "too_large"


def test_the_longest_episode_fits_into_max_message_bytes():
    assert len(message(SPEC.max_chunks)) < SPEC.max_message_bytes


class Intruder:
    def __reduce__(self):
        return (print, ("called by a message",))


@pytest.mark.parametrize("payload", [Intruder(), bytearray(8), torch.nn.Parameter(torch.zeros(2))], ids=type)
def test_nothing_but_plain_tensors_is_ever_built(payload, capsys):
    assert reason_of(transitions_to_bytes([{"state": payload}])) == "undecodable"
    assert reason_of(pickle.dumps(payload)) == "undecodable"
    assert capsys.readouterr().out == ""


def rezipped(compression: int, change=lambda name, data: data) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(message())) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return out.getvalue()


def test_a_compressed_archive_is_refused():
    decode_episode(rezipped(zipfile.ZIP_STORED), SPEC)
    assert reason_of(rezipped(zipfile.ZIP_DEFLATED)) == "undecodable"


def test_a_pickle_longer_than_any_episodes_is_not_looked_through():
    """Two megabytes of ``}`` would take seconds and a hundred times the memory."""
    long = rezipped(
        zipfile.ZIP_STORED,
        lambda name, data: (
            data[:2] + b"}" * SPEC.max_pickle_bytes + data[2:] if name.endswith("data.pkl") else data
        ),
    )
    assert reason_of(long) == "too_large"


def test_a_storage_shorter_than_its_tensor_is_refused():
    cut = rezipped(zipfile.ZIP_STORED, lambda name, data: data[:1] if name.endswith("data/0") else data)
    assert reason_of(cut) == "undecodable"


FIELDS = ["state", "action", "reward", "done", "truncated", "next_state", "complementary_info"]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decode_or_refuse(data: bytes) -> None:
    with contextlib.suppress(TransitionError):
        assert 1 <= len(decode_episode(data, SPEC)) <= SPEC.max_chunks


@FUZZ
@given(st.binary(max_size=2000))
def test_random_bytes_never_crash(data: bytes):
    assert reason_of(data) == "undecodable"


@FUZZ
@given(st.data())
def test_a_damaged_message_never_crashes(data: st.DataObject):
    damaged = bytearray(message(2))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    decode_or_refuse(bytes(damaged[:keep]))


@FUZZ
@given(st.data())
def test_a_damaged_pickle_never_crashes(data: st.DataObject):
    def damage(name: str, program: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return program
        changed = bytearray(program)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed)

    decode_or_refuse(rezipped(zipfile.ZIP_STORED, damage))


@settings(FUZZ, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
        max_leaves=20,
    )
)
def test_any_nest_of_plain_values_is_refused_not_crashed_on(value):
    reason_of(transitions_to_bytes([value]))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_action_steps": 5}, "policy.chunk_size"),
        ({"num_tokens": 0}, "num_tokens"),
        ({"image_keys": ()}, "image_keys"),
        ({"image_shape": (6, 5)}, "image_shape"),
        ({"proprio_dim": -1}, "proprio_dim"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(change: dict, word: str):
    with pytest.raises(ValueError, match=word):
        dataclasses.replace(SPEC, **change)


def test_a_spec_keeps_lists_from_a_config_as_tuples():
    lists = {"image_keys": list(SPEC.image_keys), "image_shape": [3, 6, 5]}
    spec = EpisodeSpec(**(dataclasses.asdict(SPEC) | lists))
    assert spec == SPEC
    assert hash(spec) == hash(SPEC)
    assert unpack(pack(record(np.random.default_rng(0)))).dims == spec.record_dims
