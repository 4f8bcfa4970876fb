"""A Ray cluster of two nodes on this machine, and the end-to-end tests' helpers."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("launch", "e2e")]

ray = pytest.importorskip("ray")
STORE = 80 << 20
"""Bytes of a node's object store: nothing of ours goes there."""


@pytest.fixture(scope="module")
def nodes():
    """Return the cluster; the first of its nodes has two CPUs, as many as learner and one actor take up."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets have short names
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    settings = {"num_cpus": 2, "object_store_memory": STORE}
    cluster = Cluster(
        initialize_head=True, head_node_args={**settings, "include_dashboard": False, "temp_dir": folder}
    )
    try:
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
