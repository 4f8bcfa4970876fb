"""A launch on a Ray cluster, as far as there is none: its settings, its refusals, a process's host."""

import importlib.util
import os
import time
from types import SimpleNamespace

import pytest
from test_launch_plan import prepare  # noqa: F401 (a fixture)

from bridge.launch import cluster, command
from bridge.launch.host import MOST, Host
from pirl_jax.recipe import LaunchConfig


def test_backend_is_short_for_the_setting(prepare):  # noqa: F811
    prepared, asked = prepare("--config_path=cfg.json", "--backend=ray")
    assert asked == ("--config_path=cfg.json", "--algorithm.launch.backend=ray")
    assert set(asked) < set(prepared.actor)


def test_settings_of_the_other_backend_are_refused_by_name():
    LaunchConfig(backend="ray", cpus=2, gpus=0.25, learner_gpus=1)
    LaunchConfig(devices=[0, 1], egl_devices=[])
    with pytest.raises(ValueError, match=r"^algorithm.launch.gpus=0.5 would do nothing .*backend=local"):
        LaunchConfig(gpus=0.5)
    with pytest.raises(ValueError, match=r"launch.devices=\[0\] would do nothing .*=ray: that is Ray's to"):
        LaunchConfig(backend="ray", devices=[0])
    with pytest.raises(ValueError, match=r"^algorithm.launch.backend must be local or ray; got 'slurm'"):
        LaunchConfig(backend="slurm")


def test_without_ray_it_ends_in_one_line_before_anything_is_started(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        cluster.importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    plan = SimpleNamespace(settings=LaunchConfig(backend="ray"), begun=None, folder=tmp_path / "run.launch")
    monkeypatch.setattr(command, "prepare", lambda _: plan)
    monkeypatch.setattr(command, "Supervisor", lambda *_: pytest.fail("something was started"))
    monkeypatch.setattr("sys.argv", ["pirl-launch", f"--output_dir={tmp_path}/run", "--backend=ray"])
    with pytest.raises(SystemExit, match=r"^error: algorithm.launch.backend=ray needs Ray, .*'\.\[ray\]'"):
        command.main()


@pytest.fixture
def two_machines(monkeypatch):
    """A Ray that has nodes at two addresses, the first of which is this machine's."""
    nodes = [
        {"Alive": True, "NodeID": str(number), "NodeManagerAddress": f"10.0.0.{number}"} for number in (1, 2)
    ]
    ray = SimpleNamespace(
        nodes=lambda: nodes,
        get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "1"),
        cluster_resources=lambda: {"CPU": 3.0},
    )
    monkeypatch.setattr(cluster, "_connected", lambda: ray)

    def made(address, *servers):
        settings = LaunchConfig(backend="ray", server_gpus=1)
        return cluster.Cluster(SimpleNamespace(settings=settings, address=address, policy_servers=servers))

    return made


def test_an_address_that_other_nodes_cannot_find_is_refused(two_machines):
    with pytest.raises(ValueError, match=r"learner_host=127.0.0.1 is found from its own .*: 10.0.0.2\. Set"):
        two_machines("127.0.0.1:50051")
    with pytest.raises(ValueError, match=r"^algorithm.serve.host=localhost is found from its own machine"):
        two_machines("10.0.0.1:50051", "localhost:50061")
    with pytest.raises(ValueError, match=r"serve.host=10.0.0.3 is no node of the Ray cluster: 10.0.0.1, 10"):
        two_machines("10.0.0.1:50051", "10.0.0.3:50061")


def test_policy_servers_run_on_the_node_that_their_address_names(two_machines):
    made = two_machines("10.0.0.1:50051", "10.0.0.2:50061", "10.0.0.2:50062")
    servers = made._rooms["pirl_jax.serve"]
    assert made._where(servers) == {"num_cpus": 1, "num_gpus": 1, "resources": {"node:10.0.0.2": 0.001}}
    assert made.shortage == (
        "the run takes 4 CPUs and 2 GPUs, the cluster has 3 CPUs and 0 GPUs: some processes wait until there "
        "is room"
    )


def until(condition):
    deadline = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Runs ``python -m words``, a module that lies in the folder that it is started in."""
    monkeypatch.chdir(os.getcwd())
    (tmp_path / "words.py").write_text(
        "import os, sys, time\n"
        "print(os.environ.get('PIRL_WORD'), os.environ.get('MUJOCO_EGL_DEVICE_ID'), flush=True)\n"
        "print('x' * int(sys.argv[1]), flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
        "sys.exit(3)\n"
    )
    host = Host()
    yield (
        lambda *arguments, folder=tmp_path, **environment: (
            host.start("words", arguments, environment, str(folder)) or host
        )
    )
    if hasattr(host, "_command"):
        host.kill(0)


def test_a_host_hands_its_processes_log_over_in_pieces_and_then_its_status(host, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    run = host(str(MOST + 10), "0", PIRL_WORD="told")
    until(lambda: run.news(0)[1] == 3)
    first, status = run.news(0)
    assert (len(first), status) == (MOST, 3)
    assert first.startswith(b"told 5\nxxx")
    assert run.news(MOST) == (b"x" * (10 + len(b"told 5\n")) + b"\n", 3)


def test_a_host_kills_its_process_and_has_its_last_words(host):
    run = host("3", "600")
    until(lambda: b"xxx" in run.news(0)[0])
    assert run.kill(len("None None\n")) == b"xxx\n"
    assert run.news(0)[1] == -9


def test_a_node_without_the_launchs_folder_says_so(host, tmp_path):
    with pytest.raises(OSError, match=r" has no folder .*/none \(No such file or directory\), in which pirl"):
        host("0", "0", folder=tmp_path / "none")
