"""The doctor's word on how many actors a policy server can act for."""

from types import SimpleNamespace

import pytest

from pirl_jax.diagnosis import serving
from pirl_jax.diagnosis.serving import actors_served, between_chunks, supply
from pirl_jax.serving.batching import Totals


def test_supply_is_measured_until_larger_batches_give_no_more(monkeypatch):
    clock, asked = [0.0], []

    def act(size):
        asked.append(size)
        clock[0] += 0.04 * max(1, size / 4)  # as long for 4 as for 1

    monkeypatch.setattr(serving, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert supply(act, (1, 2, 4, 8, 16)) == pytest.approx({1: 25, 2: 50, 4: 100, 8: 100})
    assert 16 not in asked


def test_what_an_actor_does_between_two_chunks_is_not_the_policys():
    totals = Totals(answered=11, batches=11, waited_s=1.0, answering_s=4.0, first=100.0, last=125.0)
    assert between_chunks(totals) == 2.0


@pytest.mark.parametrize(("seconds", "count"), [(2.0, 40), (0.01, 1)])
def test_the_number_is_where_what_is_wanted_meets_what_is_given(seconds, count):
    finding = actors_served({1: 5.0, 8: 20.0, 16: 19.0}, seconds)
    assert finding.value.startswith(f"up to {count} actors")
    assert "5 at 1, 20 at 8, 19 at 16" in finding.value
