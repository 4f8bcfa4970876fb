"""An actor without a network over real gRPC: what it asks, what it packs, and whom it waits for."""

import contextlib
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.rl.algorithms.factory import make_algorithm
from tiny import tiny_policy_config

import bridge.plugin

bridge.plugin.register()

from bridge.plugin import served, transport  # noqa: E402
from bridge.plugin.recipe_config import PiRLConfig  # noqa: E402
from bridge.wire import act, act_service  # noqa: E402
from bridge.wire.act_service import ActService  # noqa: E402
from bridge.wire.record import unpack  # noqa: E402
from bridge.wire.spec import EpisodeSpec  # noqa: E402
from pirl_jax.recipe import NoiseConfig  # noqa: E402
from pirl_jax.rollout.assignments import Assignment  # noqa: E402
from pirl_jax.rollout.evaluation import FIRST_NUMBER  # noqa: E402
from pirl_jax.serving.acting import Acted  # noqa: E402
from pirl_jax.serving.batching import Batcher  # noqa: E402

SPEC = EpisodeSpec(
    image_keys=("observation.images.front",),
    image_shape=(3, 64, 64),
    num_tokens=10,
    proprio_dim=5,
    chunk_size=8,
    n_action_steps=8,
    env_action_dim=4,
    action_dim=4,
    num_latents=3,
    denoise_steps=(1,),
    max_chunks=8,
)
RUN = 9


class Service:
    """A policy server without a policy: its chunks say what was asked."""

    def __init__(self, version=3):
        self.acts, self.asked, self.slow = (RUN, version), [], threading.Event()
        self.slow.set()
        self.acting, self.changed = self, threading.Condition()
        self.batcher = Batcher(self.answer, 2, 0.0)

    def load(self, run, version):
        with self.changed:
            self.acts = run, version
            self.changed.notify_all()

    def wait_for(self, ready, timeout):
        with self.changed:
            return self.changed.wait_for(lambda: ready(*self.acts), timeout)

    def answer(self, questions):
        self.slow.wait(10)
        self.asked += questions
        return [self._acted(question) for question in questions]

    def _acted(self, question):
        action = np.full((8, 4), question.chunk, np.float32)
        latents = np.stack([action, action, action])
        log_prob = np.full(8, question.proprio[:1].sum(), np.float32)
        return Acted(action, latents, log_prob, 1, *self.acts, 77)


@contextlib.contextmanager
def serving(service, port=0, current_run=RUN, spec=SPEC, most=8):
    stopping = threading.Event()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    acts = ActService(service, spec, lambda: current_run, stopping, most)
    server.add_generic_rpc_handlers((acts.handler(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    with service.batcher:
        try:
            yield port
        finally:
            stopping.set()
            server.stop(0.2).wait()


class Episodes:
    """What is used of ``AssignedEpisodes``."""

    actor, server, run = "an-actor", "", RUN

    def __init__(self):
        self.current, self.registered = Assignment(4, 1, 123, 0, None, 3), 0

    def say_alive(self):
        pass

    def register_again(self):
        self.registered += 1


def light(port, **policy):
    """A light algorithm, and a call for its next row."""
    policy_config = tiny_policy_config(**policy)
    config = PiRLConfig(noise=NoiseConfig(level=0.1), inference="served")
    config.policy_config = policy_config
    algorithm = make_algorithm(config, served.LightPolicy(policy_config))
    plain, stop = transport.open_channel(f"127.0.0.1:{port}"), threading.Event()
    algorithm.acting.channel = SimpleNamespace(plain=plain, stop=stop, dialer=None, episodes=Episodes())
    preprocess, _ = make_pre_post_processors(policy_config)
    generator = torch.Generator().manual_seed(1)
    batch = preprocess.process_observation(
        {
            "observation.images.front": torch.randint(
                0, 256, (1, 3, 64, 64), generator=generator, dtype=torch.uint8
            ),
            "observation.state": torch.randn((1, 5), generator=generator),
            "observation.language.tokens": torch.randint(0, 12, (1, 10), generator=generator),
            "observation.domain_id": torch.tensor([1]),
        }
    )
    return algorithm, batch, lambda: unpack(algorithm.select_action(dict(batch)).numpy())


def test_a_light_policy_has_no_parameters_and_goes_where_lerobot_puts_it():
    policy = served.LightPolicy(tiny_policy_config()).to("cpu").eval()
    assert not list(policy.parameters())
    assert policy.model.action_space.name == "auto"


def test_only_a_served_actor_is_given_one(monkeypatch, tmp_path):
    config = PiRLConfig(inference="served")
    config.policy_config = tiny_policy_config()
    monkeypatch.setattr(transport, "is_actor", lambda: True)
    assert isinstance(served.from_pretrained(tmp_path, config=config.policy_config), served.LightPolicy)
    monkeypatch.setattr(transport, "is_actor", lambda: False)
    with pytest.raises(Exception, match=r"safetensors"):
        served.from_pretrained(tmp_path, config=config.policy_config)


def test_a_row_is_what_the_server_drew():
    service = Service()
    with serving(service) as port:
        _, batch, row = light(port)
        records = [row(), row()]
    assert [record.latents[0, 0, 0] for record in records] == [0, 1]  # the chunk's index
    for record in records:
        assert (record.version, record.number, record.run, record.feature_key) == (3, 4, RUN, 77)
        np.testing.assert_array_equal(record.log_prob, np.full(8, batch["observation.state"][0, 0]))
    question = service.asked[0]
    assert (question.noise_key, question.domain_id) == (123, 1)
    np.testing.assert_array_equal(question.images, batch["observation.images.front"].numpy())
    np.testing.assert_array_equal(question.tokens, batch["observation.language.tokens"][0])


def test_images_are_sent_as_the_camera_gave_them():
    _, batch, _ = light(1)
    assert batch["observation.images.front"].dtype == torch.uint8


def test_an_instruction_is_sent_once(monkeypatch):
    sent = []
    encode = act.encode_question
    monkeypatch.setattr(act, "encode_question", lambda *args: sent.append(len(args)) or encode(*args))
    with serving(Service()) as port:
        *_, row = light(port)
        for _ in range(3):
            row()
    assert sent == [2, 3, 2, 2]


def test_a_new_episode_begins_at_chunk_0_whatever_its_number():
    with serving(Service()) as port:
        algorithm, _, row = light(port)
        row()
        row()
        episodes = algorithm.acting.channel.episodes
        episodes.current = Assignment(4, 1, 123, 0, None, 3)  # the same again
        assert row().latents[0, 0, 0] == 0


def test_a_chunk_of_an_evaluation_is_asked_for_without_noise():
    service = Service()
    with serving(service) as port:
        algorithm, _, row = light(port)
        row()
        algorithm.acting.channel.episodes.current = Assignment(FIRST_NUMBER, 1, 123, 0, None, 3)
        assert row().number == FIRST_NUMBER
    assert [question.noise_free for question in service.asked] == [False, True]


def test_the_version_that_was_assigned_is_waited_for():
    service = Service(version=2)
    with serving(service) as port:
        *_, row = light(port)
        threading.Timer(0.5, lambda: service.load(RUN, 5)).start()
        started = time.monotonic()
        assert row().version == 5
        assert time.monotonic() - started > 0.4


def test_an_episode_of_a_learner_that_is_gone_is_played_for_nothing():
    """By a server that has heard of the next one: nobody is held up, and nothing of it is learned from."""
    service = Service()
    service.load(10, 1)
    with serving(service, current_run=10) as port:
        algorithm, _, row = light(port)
        episodes = algorithm.acting.channel.episodes
        episodes.register_again = lambda: setattr(episodes, "run", 10)  # it is another process now
        assert row().run == 0


def test_a_server_that_acts_for_another_run_is_not_played_with():
    """One that has not heard of this learner yet, or a neighbour's on a port that this run's has left."""
    neighbour = Service()
    neighbour.load(10, 1)
    with serving(neighbour, current_run=10) as wrong, serving(Service()) as right:
        algorithm, _, row = light(1)
        episodes = algorithm.acting.channel.episodes
        episodes.server = f"127.0.0.1:{wrong}"
        episodes.register_again = lambda: setattr(episodes, "server", f"127.0.0.1:{right}")
        assert row().run == RUN
    assert len(neighbour.asked) == 1


def test_versions_do_not_fall_within_an_episode_whichever_server_answers():
    service = Service(version=5)
    with serving(service) as port:
        *_, row = light(port)
        assert row().version == 5
        service.load(RUN, 4)  # as another server may be, that lies behind
        threading.Timer(0.5, lambda: service.load(RUN, 6)).start()
        assert row().version == 6


def test_a_policy_that_sees_no_state_is_asked_without_one():
    spec = dataclasses.replace(SPEC, proprio_dim=0)
    service = Service()
    with serving(service, spec=spec) as port:
        *_, row = light(port, use_proprio=False)
        assert row().version == 3
    assert service.asked[0].proprio.shape == (0,)


def test_a_server_that_is_restarted_is_waited_for():
    first, second = Service(), Service()
    with serving(first) as port:
        *_, row = light(port)
        row()
    revived = threading.Event()

    def revive():
        with serving(second, port):
            revived.wait(20)

    thread = threading.Timer(0.7, revive)
    thread.start()
    try:
        assert row().latents[0, 0, 0] == 1  # the episode goes on
    finally:
        revived.set()
        thread.join()
    assert len(second.asked) == 1


def test_a_server_that_stays_away_is_asked_for(monkeypatch):
    from bridge.plugin import policy_server

    monkeypatch.setattr(policy_server, "_ASK_WHERE_AFTER", 2)
    monkeypatch.setattr(transport, "_LAST_DELAY", 0.2)
    with serving(Service()) as port:
        algorithm, _, row = light(1)
        episodes = algorithm.acting.channel.episodes
        episodes.server = "127.0.0.1:1"

        def again():
            episodes.server = f"127.0.0.1:{port}"

        episodes.register_again = again
        assert row().version == 3


def test_an_actor_that_is_told_to_stop_waits_for_no_chunk():
    service = Service()
    service.slow.clear()
    with serving(service) as port:
        algorithm, _, row = light(port)
        threading.Timer(0.3, algorithm.acting.channel.stop.set).start()
        with pytest.raises(SystemExit) as caught:
            row()
        service.slow.set()
    assert caught.value.code == 0


def question(version=3):
    """A client's question, as it is sent."""
    tokens = np.zeros(10, np.int64)
    asked = act.Question("somebody", act.name_of(tokens), 0, 1, 0, RUN, version, False)
    observation = act.Observation(np.zeros((1, 3, 64, 64), np.uint8), np.zeros(5, np.float32))
    return act.encode_question(asked, observation, tokens)


@contextlib.contextmanager
def client(port):
    """Questions without a deadline."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
        yield plain.unary_unary(f"/{act.SERVICE}/{act.ACT}").future


def test_a_client_that_has_left_costs_nothing_more():
    service = Service()
    service.slow.clear()
    with serving(service) as port, client(port) as ask:
        running = ask(question())
        time.sleep(0.3)
        left = ask(question())
        time.sleep(0.3)
        left.cancel()
        time.sleep(0.5)
        service.slow.set()
        running.result(5)
        time.sleep(0.3)
    assert len(service.asked) == 1


def test_a_question_without_a_deadline_is_not_worked_on_for_ever(monkeypatch):
    """Of a version that never comes: it would take a thread of the learner's for good."""
    monkeypatch.setattr(act_service, "_LONGEST_S", 0.3)
    with serving(Service()) as port, client(port) as ask, pytest.raises(grpc.RpcError) as caught:
        ask(question(version=1 << 62)).result(10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_so_many_questions_are_there_at_a_time_and_others_are_told_so():
    """Whoever opens more leaves the learner's threads to the rest of what it serves."""
    service = Service()
    service.slow.clear()
    with serving(service, most=2) as port, client(port) as ask:
        first = [ask(question()) for _ in range(2)]
        time.sleep(0.3)
        with pytest.raises(grpc.RpcError) as caught:
            ask(question()).result(5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "has 2 questions already" in caught.value.details()
        service.slow.set()
        assert all(each.result(5) for each in first)
        assert ask(question()).result(5)


def test_an_actor_more_than_there_is_room_for_waits_its_turn():
    service = Service()
    service.slow.clear()
    with serving(service, most=1) as port, client(port) as ask:
        ask(question())
        time.sleep(0.3)
        threading.Timer(0.5, service.slow.set).start()
        *_, row = light(port)
        assert row().version == 3


def test_what_cannot_be_read_ends_the_actor_with_a_word(monkeypatch):
    monkeypatch.setattr(act, "encode_question", lambda *args: b"nonsense")
    with serving(Service()) as port:
        *_, row = light(port)
        with pytest.raises(SystemExit, match="the policy server refused this actor: INVALID_ARGUMENT"):
            row()


def test_a_learner_without_a_policy_server_is_named():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    *_, row = light(port)
    with pytest.raises(SystemExit, match="refused this actor: UNIMPLEMENTED"):
        row()
    server.stop(0)
