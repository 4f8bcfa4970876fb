"""What a command line starts: the arguments of learner and actors, as LeRobot reads it."""

import dataclasses
import errno
import json
import os
import socket
from types import SimpleNamespace

import pytest
from forked import Command
from stand_in import save
from test_learner import free_port, write_config

from bridge.launch import command, facts, plan
from bridge.launch.actor import Actor
from bridge.launch.facts import Facts
from bridge.launch.policy_server import PolicyServer
from pirl_jax.recipe import LaunchConfig
from pirl_jax.run_folder.lock import occupied

PLUGIN = "--env.discover_packages_path=bridge.plugin"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepare a command line; what LeRobot would read of it is given."""

    def prepare(*arguments, **changes):
        told = Facts(str(tmp_path / "run"), 10, "127.0.0.1", free_port(), 64, "/the/base", LaunchConfig())
        asked = []
        monkeypatch.setattr(
            plan, "read_facts", lambda learner: asked.append(learner) or dataclasses.replace(told, **changes)
        )
        return plan.prepare(arguments), asked[0]

    return prepare


def test_learner_and_actors_of_a_new_run_get_the_command_line(prepare, tmp_path):
    arguments = ("--config_path=cfg.json", "--policy.path=base", "--resume=false")
    prepared, asked = prepare(*arguments, f"--output_dir={tmp_path}/run", "--actors=3")
    actors = "--algorithm.launch.actors=3"
    assert asked == (*arguments, f"--output_dir={tmp_path}/run", actors)
    assert prepared.learner == (*arguments, actors, f"--output_dir={tmp_path}/run")
    assert prepared.actor == ("--config_path=cfg.json", "--policy.path=base", actors, PLUGIN)
    assert prepared.folder == tmp_path / "run.launch"


def test_a_run_that_is_resumed_has_its_actors_begin_from_its_base(prepare, tmp_path):
    save(tmp_path / "run", 4)
    config = tmp_path / "run/checkpoints/000004/pretrained_model"
    (config / "train_config.json").write_text('{"of": "the run"}')
    prepared, asked = prepare(f"--config_path={config}", "--resume=true", "--steps=20")
    assert asked == (f"--config_path={config}", "--resume=true", "--steps=20")
    copy = tmp_path / "run.launch/train_config.json"
    assert prepared.actor == (f"--config_path={copy}", "--policy.path=/the/base", "--steps=20", PLUGIN)
    assert json.loads(copy.read_text()) == {"of": "the run"}  # where the checkpoint may be gone by then


def test_auto_goes_on_from_the_last_checkpoint_in_the_folder_that_the_config_names(prepare, tmp_path):
    cfg, run = tmp_path / "cfg.json", tmp_path / "run"
    cfg.write_text(json.dumps({"output_dir": str(run)}))
    given = (f"--config_path={cfg}", "--policy.path=base", "--seed=1")
    prepared, _ = prepare(*given, "--resume=auto")
    assert prepared.learner == (*given, f"--output_dir={run}")
    save(run, 4)
    prepared, asked = prepare(*given, "--resume=auto")
    last = run / "checkpoints/last/pretrained_model/train_config.json"
    assert asked == (f"--config_path={last}", "--resume=true", f"--output_dir={run}", "--seed=1")
    copy = tmp_path / "run.launch/train_config.json"
    assert prepared.actor == (f"--config_path={copy}", "--policy.path=base", "--seed=1", PLUGIN)
    assert set(prepared.learner_again()) == set(prepared.learner) == set(asked)


def test_a_checkpoint_that_last_does_not_lead_to_yet_is_found(tmp_path):
    assert plan.saved_config(tmp_path / "run") is None
    for step in (9, 10):
        save(tmp_path / "run", step)
    (tmp_path / "run/checkpoints/last").unlink()
    assert plan.saved_config(tmp_path / "run").resolve().parts[-3] == "000010"


def test_values_may_stand_apart_from_their_names(prepare, tmp_path):
    cfg, run = tmp_path / "cfg.json", tmp_path / "run"
    save(run, 4)
    prepared, _ = prepare(*f"--config_path {cfg} --resume auto --output_dir {run} --actors 2 --lr -1".split())
    last = run / "checkpoints/last/pretrained_model/train_config.json"
    rest = ("--algorithm.launch.actors=2", "--lr=-1")
    assert prepared.learner == (f"--config_path={last}", "--resume=true", *rest, f"--output_dir={run}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"cfg.json cannot be read: Expecting value"),
        (b"\xff\xfe\x00", r"cfg.json cannot be read: .*utf-8"),
        (b"[]", r"cfg.json holds no JSON object"),
        (b'{"output_dir": 5}', "give --output_dir="),
    ],
)
def test_a_config_that_names_no_folder_is_one_line(prepare, tmp_path, content, words):
    (tmp_path / "cfg.json").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        prepare(f"--config_path={tmp_path}/cfg.json", "--resume=auto")


def test_a_launch_in_the_folder_of_its_run_has_its_own_beside_it(prepare, tmp_path, monkeypatch):
    save(tmp_path / "run", 4)
    monkeypatch.chdir(tmp_path / "run")
    prepared, _ = prepare("--output_dir=.", "--resume=auto", output_dir=".")
    assert prepared.folder == tmp_path / "run.launch"


def test_a_place_where_nothing_can_be_written_is_said_before_anything_starts(prepare, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"nothing can be written to .*/x.launch \(Not a directory\)"):
        prepare(output_dir=f"{tmp_path}/file/x")


def test_a_disk_that_is_full_is_said_before_anything_starts(prepare, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plan.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(ValueError, match=r"run.launch \(No space left on device\)\. Give another"):
        prepare()


def test_auto_without_a_folder_says_what_it_needs(prepare):
    with pytest.raises(ValueError, match=r"--resume=auto needs the folder .* give --output_dir="):
        prepare("--config_path=cfg.json", "--resume=auto")


def test_a_port_in_use_and_too_many_actors_are_said_before_anything_starts(prepare):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port} .*learner_port=N, a free port"):
            prepare(port=port)
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port} .*--algorithm.serve.port=N, a free port"):
            prepare(policy_servers=(("127.0.0.1", free_port()), ("127.0.0.1", port)))
    with pytest.raises(ValueError, match=r"launch.actors=65 is more .* raise algorithm.max_actors=64"):
        prepare(launch=LaunchConfig(actors=65))


def test_one_port_for_two_and_hosts_of_others_are_said_before_anything_starts(prepare):
    port = free_port()
    with pytest.raises(ValueError, match=rf"127.0.0.1:{port} .*--algorithm.serve.port=N, a free port"):
        prepare(port=port, policy_servers=(("127.0.0.1", port),))
    with pytest.raises(ValueError, match=r"no.such.host:.*Set --algorithm.serve.host to a name"):
        prepare(policy_servers=(("no.such.host", port),))
    with pytest.raises(ValueError, match=r"192.0.2.1:.*Set --algorithm.actor_learner_config.learner_host to"):
        prepare(host="192.0.2.1")


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_written_as_grpc_reads_it(prepare):
    assert prepare(host="[::1]")[0].address.startswith("[::1]:")


def test_devices_for_policy_servers_that_are_none_are_refused(prepare):
    launch = LaunchConfig(server_devices=(1,))
    with pytest.raises(ValueError, match=r"server_devices=\(1,\) would do nothing"):
        prepare(launch=launch)
    prepare(launch=launch, policy_servers=(("127.0.0.1", free_port()),))


@pytest.mark.parametrize("count", ["0", "-1", "many", ""])
def test_a_number_of_actors_that_is_none_is_refused(prepare, count):
    with pytest.raises(ValueError, match=f"--actors must be a number of at least 1; got '{count}'"):
        prepare(f"--actors={count}")


def test_devices_are_dealt_out_in_turn():
    settings = LaunchConfig(threads=2, devices=(4, 5), egl_devices=(7,))
    cuda = [Actor.environment(settings, number)["CUDA_VISIBLE_DEVICES"] for number in range(3)]
    assert cuda == ["4", "5", "4"]
    assert Actor.environment(settings, 1)["MUJOCO_EGL_DEVICE_ID"] == "7"
    assert Actor.environment(settings, 1)["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in Actor.environment(LaunchConfig(), 0)
    servers = LaunchConfig(devices=(4, 5), server_devices=(2, 3))
    assert [PolicyServer.environment(servers, n) for n in (0, 3)] == [
        {"CUDA_VISIBLE_DEVICES": n} for n in "23"
    ]


def test_the_config_is_read_as_the_learner_reads_it(tmp_path, monkeypatch):
    """By the real parser, in a process; a fork stands in for the new interpreter."""
    served = {"inference": "served", "serve": {"mode": "process", "replicas": 2, "host": "127.0.0.2"}}
    config = write_config(tmp_path, 4711, algorithm={"launch": {"actors": 2, "devices": [0, 1]}, **served})

    def run(command, **options):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        status = Command(command[2], command[3:], log).wait(120)
        return type("Done", (), {"returncode": status, "stdout": log.read_text(), "stderr": log.read_text()})

    monkeypatch.setattr(facts.subprocess, "run", run)
    told = facts.read_facts([f"--config_path={config}", "--algorithm.launch.hang_after_s=30"])
    settings = LaunchConfig(actors=2, devices=(0, 1), hang_after_s=30)
    servers = (("127.0.0.2", 50061), ("127.0.0.2", 50062))
    assert told == Facts(str(tmp_path / "output"), 4, "127.0.0.1", 4711, 64, None, settings, servers)
    with pytest.raises(ValueError, match=r"^algorithm.memory_gb must be above 0.*got -1.0\.$"):
        facts.read_facts([f"--config_path={config}", "--algorithm.memory_gb=-1"])


def test_a_run_that_is_done_is_told_without_asking_lerobot(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    save(run, 10)
    config = run / "checkpoints/last/pretrained_model/train_config.json"
    env = {"type": "libero", "task": "libero_object", "task_ids": [0, 3], "episode_length": 280}
    config.write_text(json.dumps({"steps": 10, "output_dir": str(run), "env": env}))
    monkeypatch.setattr(plan, "read_facts", lambda _: pytest.fail("it takes long"))
    for again in ([f"--output_dir={run}", "--resume=auto"], [f"--config_path={config}", "--resume=true"]):
        monkeypatch.setattr("sys.argv", ["pirl-launch", *again])
        tasks = "--suites=libero_object --tasks=0,3 --episode_length=280 --n_episodes=50"
        command.main()
        assert capsys.readouterr().out.splitlines() == [
            f"finished: all 10 updates; the policy is in {config.parent}",
            f"metrics, a line an update: {run}/metrics.jsonl",
            f"evaluate it: pirl-eval {run}/checkpoints/last {tasks}",
            "There is nothing left to do. To train on, give more updates than these: --steps=N",
        ]
    assert plan.updates_done([f"--output_dir={run}", "--resume=auto", "--steps=11"]) is None
    assert plan.updates_done([f"--output_dir={tmp_path}/other", "--resume=auto"]) is None
    with pytest.raises(ValueError, match=r"^there is no file --config_path=.*/no.json\.$"):
        plan.updates_done([f"--config_path={tmp_path}/no.json", "--resume=true"])


def test_a_launch_beside_one_of_the_same_run_is_refused(tmp_path, monkeypatch, capsys):
    """Also while the other's learner does not listen yet, so that no port is taken."""
    folder = tmp_path / "run.launch"
    monkeypatch.setattr(
        command, "prepare", lambda _: SimpleNamespace(begun=None, folder=folder, settings=LaunchConfig())
    )
    monkeypatch.setattr(command, "Supervisor", lambda *_: pytest.fail("something was started"))
    monkeypatch.setattr("sys.argv", ["pirl-launch", f"--output_dir={tmp_path}/run"])
    words = (
        rf"^error: another run writes to .*run.launch \(process {os.getpid()}\)\. Stop it, or give another"
    )
    with occupied(folder), pytest.raises(SystemExit, match=words):
        command.main()
    assert capsys.readouterr().out.endswith(" reading the config, as LeRobot reads it\n")
