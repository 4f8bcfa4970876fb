"""On several devices an update is what it is on one, and stays where it was put."""

import os
import subprocess
import sys

import numpy as np
import pytest

from pirl_jax.placement import ONE_DEVICE, place
from pirl_jax.recipe import MeshConfig

TOLERANCE = {"linear": 1e-12, "xvla": 1e-5}
"""Relative, of the gradient: the linear policy is in float64, X-VLA's network in float32."""
DEVICES = {"one": 1, "data2": 1, "fsdp4": 4, "data2_fsdp4": 4}
"""On how many the trained parameters are split."""


def difference(one, other, chosen):
    """Norm of the difference of the arrays of these names, relative to their norm."""
    names = [name for name in one.files if chosen(name) and one[name].dtype.kind == "f"]
    assert names
    a, b = (np.concatenate([np.ravel(each[name]).astype(float) for name in names]) for each in (one, other))
    return np.linalg.norm(a - b) / np.linalg.norm(a)


def placed(folder, of):
    """What ``placed_run`` found, by mesh."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "placed_run", str(folder), of]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: np.load(folder / f"{name}.npz") for name in DEVICES}


@pytest.mark.parametrize("of", ["linear", pytest.param("xvla", marks=pytest.mark.slow)])
def test_updates_on_2_4_and_8_devices_are_those_on_one(tmp_path, of):
    found = placed(tmp_path, of)
    one = found["one"]
    for name, devices in DEVICES.items():
        other = found[name]
        # After one update from zero, Adam's first moment is a multiple of the gradients.
        assert difference(one, other, lambda key: key.startswith("first/") and ".mu" in key) < TOLERANCE[of]
        # Adam divides a gradient near zero by its own size, and with it its rounding.
        assert difference(one, other, lambda key: key.startswith("state/params")) < 5 * TOLERANCE[of]
        assert difference(one, other, lambda key: key.startswith("metric/")) < 10 * TOLERANCE[of]
        assert list(other["gone"]) == []
        assert [int(other[f"compiled/{update}"]) for update in (1, 2)] == [0, 0]
        assert bool(other["restored"]), "another mesh read another state"
        if of == "xvla":
            assert other["bytes"] < 1.1 * one["bytes"] / devices


@pytest.mark.slow
def test_a_policy_servers_devices_share_a_batch_and_answer_as_one_does(tmp_path):
    found = placed(tmp_path, "acting")
    for name, sharers in (("one", 1), ("data2", 2), ("fsdp4", 4), ("data2_fsdp4", 8)):
        other = found[name]
        assert int(other["shared/8"]) == sharers
        assert int(other["shared/3"]) == 1, "three rows are no multiple"
        assert int(other["compiled"]) == 0
        assert difference(found["one"], other, lambda key: key.startswith("action/")) < 1e-5
        assert difference(found["one"], other, lambda key: key.startswith("log_prob/")) < 1e-5


def test_one_device_needs_no_mesh():
    assert place(MeshConfig()) is ONE_DEVICE
    tree = {"a": np.ones(3)}
    assert ONE_DEVICE.moved(tree) is tree
    assert ONE_DEVICE.constrained(tree) is tree
    assert ONE_DEVICE.first(tree) is tree


def test_more_devices_than_there_are_are_refused_in_a_line():
    with pytest.raises(
        ValueError, match=r"algorithm\.mesh\.data=64 times algorithm\.mesh\.fsdp=2 is 128 dev"
    ):
        place(MeshConfig(data=64, fsdp=2))
