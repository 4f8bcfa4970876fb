"""Policy servers of their own: who is taken, who acts for whom, and what an actor without one is told."""

import threading
import time

import grpc
import pytest

from bridge.plugin.assigned import AssignedEpisodes
from bridge.wire import policy_servers, protocol, record
from bridge.wire.policy_servers import PolicyServers
from bridge.wire.protocol import PACKAGE_VERSION, Offer, Offered, Status
from bridge.wire.server import LearnerServer
from pirl_jax.rollout.assignments import Assignments

AGREEMENT = {"algorithm.noise.mode": "terminal", "frozen tensors": "ab"}


def offer(server="s", address="h:1", **agreement):
    return Offer(server, address, PACKAGE_VERSION, record.FORMAT, {**AGREEMENT, **agreement})


def test_actors_are_spread_and_stay_where_they_are():
    servers = PolicyServers(AGREEMENT)
    assert servers.choose("a") is None
    for i in (1, 2):
        assert servers.offer(offer(f"s{i}", f"h:{i}")) is None
    addresses = {actor: servers.choose(actor) for actor in "abcd"}
    assert sorted(addresses.values()) == ["h:1", "h:1", "h:2", "h:2"]
    assert {actor: servers.choose(actor) for actor in "abcd"} == addresses
    servers.leave("a")
    assert servers.choose("e") == addresses["a"]


def test_a_server_that_is_gone_leaves_its_actors_to_the_others(monkeypatch):
    servers = PolicyServers(AGREEMENT)
    servers.offer(offer("s1", "h:1"))
    assert servers.choose("a") == "h:1"
    monkeypatch.setattr(policy_servers, "GONE_AFTER_S", 0.1)
    time.sleep(0.2)
    servers.offer(offer("s2", "h:2"))
    assert servers.addresses() == ["h:2"]
    assert servers.choose("a") == "h:2"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"frozen tensors": "cd"}, 'The policy server\'s frozen tensors is "cd" and the learner\'s is "ab"'),
        ({"more": 1}, "more is 1 and the learner's is not set"),
    ],
)
def test_a_server_of_other_weights_or_another_config_is_refused(changed, words):
    servers = PolicyServers(AGREEMENT)
    assert words in (servers.offer(offer(**changed)) or "")
    assert servers.choose("a") is None


def test_an_actor_waits_for_a_server_and_is_told_where_it_is():
    servers = PolicyServers(AGREEMENT)
    with LearnerServer(
        "127.0.0.1",
        0,
        decode=lambda message: None,
        assignments=Assignments(4, seed=3),
        agreement={},
        policy_servers=servers,
    ) as learner:
        channel = grpc.insecure_channel(f"127.0.0.1:{learner.port}")
        heard = []

        def wait(reason):
            heard.append(reason)
            time.sleep(0.05)
            return True

        episodes = AssignedEpisodes(channel, "a", threading.Event(), wait, lambda: None)
        call = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.OFFER}")
        threading.Timer(0.3, lambda: call(protocol.encode(offer("s", "h:1")))).start()
        episodes.register("name", {})
        assert episodes.server == "h:1"
        assert heard[0].startswith("UNAVAILABLE No policy server is there: start python -m pirl_jax.serve")
        reply = protocol.decode(Offered, call(protocol.encode(offer("s", "h:1"))))
        assert reply.run == learner.run
        status = channel.unary_unary(f"/{protocol.SERVICE}/{protocol.STATUS}")(b"{}")
        assert protocol.decode(Status, status).servers == ["h:1"]
        channel.close()


def test_a_learner_whose_actors_act_by_themselves_has_no_use_for_a_server():
    with LearnerServer(
        "127.0.0.1", 0, decode=lambda message: None, assignments=Assignments(4, seed=3), agreement={}
    ) as learner:
        channel = grpc.insecure_channel(f"127.0.0.1:{learner.port}")
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{protocol.SERVICE}/{protocol.OFFER}")(protocol.encode(offer()))
        assert "This learner has no use for policy servers." in caught.value.details()
        channel.close()
