"""The rules by which a launch starts, watches and ends its processes; the processes are stand-ins."""

import json
import signal
import threading
import time

import pytest
from house import House
from stand_in import save

from bridge.launch import policy_server
from bridge.launch.board import run_line, state

REFUSED = "error: the learner refused this actor: it is another's."


@pytest.fixture
def house(tmp_path):
    houses = []

    def build(behaviours, **settings):
        houses.append(House(tmp_path, behaviours, **settings))
        return houses[-1]

    yield build
    for each in houses:
        for process in each.processes.values():
            process.kill()


def test_actors_are_started_once_the_learner_listens_each_in_a_folder_of_its_own(house):
    launch = house({"learner": ["finish 2"], "0": ["run"], "1": ["run"]})
    launch.until(lambda: launch.starts("learner"))
    assert [name for name, _ in launch.started] == ["learner"]
    launch.until(lambda: launch.beats("0", "1"))
    outcome = launch.end()
    assert outcome.end == "finished"
    assert outcome.line.splitlines() == [
        f"finished: all 10 updates; the policy is in {launch.output_dir}/checkpoints/last/pretrained_model",
        f"metrics, a line an update: {launch.output_dir}/metrics.jsonl",
    ]
    folders = {arguments[-1] for _, arguments in launch.started}
    assert folders == {
        f"--output_dir={launch.output_dir}",
        f"--output_dir={launch.output_dir}.launch/actor0/01",
        f"--output_dir={launch.output_dir}.launch/actor1/01",
    }
    assert not any(process.running for process in launch.processes.values())


def test_an_actor_that_ends_with_0_is_started_again_up_to_the_limit_and_the_others_go_on(house):
    launch = house({"0": ["exit 0 no connection"], "1": ["run"]}, max_restarts=2)
    launch.until(lambda: launch.supervisor.actors[0].slot.lost)
    launch.until(lambda: launch.beats("1"))
    assert (launch.starts("0"), launch.starts("1")) == (3, 1)
    folders = [arguments[-1].rpartition("/")[2] for name, arguments in launch.started if name == "0"]
    assert folders == ["01", "02", "03"]
    assert any("ended with status 0 and is started again in 0 s" in line for line in launch.said)
    assert launch.said[-1].startswith("actor 0 ended with status 0, once too often")
    assert launch.said[-1].endswith("no connection")


def test_when_every_actor_is_refused_the_learner_saves_and_the_launch_says_why(house):
    launch = house({"0": [f"exit 1 {REFUSED}"], "1": [f"exit 1 {REFUSED}"]})
    outcome = launch.end()
    assert outcome.end == "failed"
    assert outcome.line.startswith("no actor is left; ")
    assert outcome.line.endswith(": the learner refused this actor: it is another's.")
    assert (launch.starts("0"), launch.starts("1")) == (1, 1)
    assert (launch.output_dir / "checkpoints" / "last").exists()


def test_an_actor_that_stands_still_is_killed_and_started_again(house):
    launch = house({"0": ["run"], "1": ["run"]}, hang_after_s=3.0)
    launch.until(lambda: launch.beats("0", "1"))
    launch.signal("0", signal.SIGSTOP)
    launch.until(lambda: launch.starts("0") == 2 and launch.beats("0"))
    assert launch.starts("1") == 1
    assert any(line.startswith("actor 0 was not heard of for ") for line in launch.said)
    assert launch.supervisor.actors[0].slot.restarts == 1


def test_a_killed_learner_goes_on_from_its_last_checkpoint_and_its_actors_stay(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    actor = launch.processes["0"].pid
    save(launch.output_dir, 2)
    launch.signal("learner", signal.SIGKILL)
    launch.until(lambda: launch.starts("learner") == 2 and launch.beats("learner"))
    config = launch.output_dir / "checkpoints/last/pretrained_model/train_config.json"
    assert launch.started[-1][1] == (
        f"--config_path={config}",
        "--resume=true",
        f"--output_dir={launch.output_dir}",
        "--seed=3",
    )
    assert (launch.processes["0"].pid, launch.starts("0")) == (actor, 1)
    assert launch.processes["0"].running
    assert any("the learner was killed by SIGKILL and is started again" in line for line in launch.said)


def test_a_learner_killed_before_its_first_checkpoint_begins_anew(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("learner"))
    launch.signal("learner", signal.SIGKILL)
    launch.output_dir.rmdir()  # the real one moves it aside
    launch.until(lambda: launch.starts("learner") == 2)
    assert launch.started[-1][1] == launch.plan.learner


def test_a_learner_that_someone_else_has_stopped_ends_the_launch_as_stopped(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("learner"))
    launch.signal("learner", signal.SIGTERM)
    assert launch.end().line.startswith("stopped: update 3 is saved; ")


def test_a_learner_that_does_not_answer_any_more_is_killed_and_started_again(house):
    launch = house({"0": ["run"]}, hang_after_s=3.0)
    launch.until(lambda: launch.beats("0"))
    save(launch.output_dir, 2)
    launch.signal("learner", signal.SIGSTOP)
    launch.until(lambda: launch.starts("learner") == 2 and launch.beats("learner"))
    assert any(line.startswith("the learner has not answered for ") for line in launch.said)
    # Meanwhile nobody could hear of the actor; that is no fault of its own.
    launch.until(lambda: launch.supervisor.status is not None)
    assert launch.starts("0") == 1


def test_a_learner_that_is_killed_too_often_ends_the_launch(house):
    launch = house({"0": ["run"]}, max_restarts=0)
    launch.until(lambda: launch.beats("0"))
    launch.signal("learner", signal.SIGKILL)
    outcome = launch.end()
    assert outcome.end == "failed"
    assert outcome.line.startswith("the learner was killed by SIGKILL, once too often; ")
    assert not launch.processes["0"].running


def test_a_learner_that_ends_with_an_error_ends_the_launch_with_its_line(house):
    launch = house({"learner": ["exit 1 error: seed must be a number"], "0": ["run"]})
    outcome = launch.end()
    assert outcome.end == "failed"
    assert outcome.line == f"seed must be a number ({launch.plan.folder}/learner/01.log)"
    assert launch.starts("0") == 0


def test_a_learner_that_never_listens_is_told_of_each_minute_and_given_up_with_its_last_lines(house):
    launch = house(
        {"learner": ["silent compiling what the run will do"], "0": ["run"]}, listen_within_s=1800.0
    )
    launch.until(lambda: launch.starts("learner"))
    launch.until(lambda: "compiling" in launch.supervisor.learner.last_words())
    started = launch.supervisor.learner.started
    launch.supervisor.learner.log.write_text("")
    assert launch.supervisor.step(started + 60) is None
    assert launch.said[-1] == "the learner does not listen yet, after 60 s: no word in its log"
    launch.supervisor.learner.log.write_text("compiling what the run will do\n")
    for seconds in (90, 121, 150, 190):
        assert launch.supervisor.step(started + seconds) is None
    told = [line for line in launch.said if "does not listen yet" in line][1:]
    assert told == [
        f"the learner does not listen yet, after {waited}: compiling what the run will do"
        for waited in ("2 min", "3 min")
    ]
    outcome = launch.supervisor.step(started + 1801)
    assert outcome is not None
    assert outcome.end == "failed"
    log = f"{launch.plan.folder}/learner/01.log"
    assert outcome.line == (
        "the learner has not listened within 1800 s (algorithm.launch.listen_within_s); "
        f"{log} ends:\ncompiling what the run will do"
    )
    launch.supervisor.close()
    assert not launch.processes["learner"].running
    assert launch.starts("0") == 0


def test_asked_to_stop_the_learner_saves_and_the_last_line_says_how_to_go_on(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    launch.supervisor.ask_to_stop()
    outcome = launch.end()
    assert outcome.end == "stopped"
    assert outcome.line == (
        "stopped: update 3 is saved; go on with: pirl-launch --config_path=cfg.json --seed=3 "
        f"--output_dir={launch.output_dir} --resume=auto"
    )
    assert not any(process.running for process in launch.processes.values())


def test_actors_end_as_soon_as_the_launch_is_asked_to_stop_while_the_learner_saves(house):
    """What they play would not be learned from, and their end takes a while, too."""
    launch = house({"learner": ["slow"], "0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    launch.supervisor.ask_to_stop()
    (actor,) = launch.supervisor.actors
    launch.until(lambda: actor.slot.process is None)
    assert launch.processes["learner"].running
    assert state(actor, time.monotonic()) == "ended"
    assert run_line(launch.supervisor).endswith("the learner saves")
    assert launch.end().line.startswith("stopped: update 3 is saved; ")
    assert launch.starts("0") == 1


def test_actors_end_once_all_updates_are_done_and_come_back_if_the_last_was_not_saved(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    launch.done = launch.plan.updates
    (actor,) = launch.supervisor.actors
    launch.until(lambda: actor.slot.process is None)
    assert run_line(launch.supervisor) == "update 10 of 10, the learner saves"
    save(launch.output_dir, 8)
    launch.done = 8
    launch.signal("learner", signal.SIGKILL)
    launch.until(lambda: launch.starts("0") == 2 and actor.registered)
    assert not launch.supervisor.learned


def test_a_learner_that_listens_no_more_after_its_last_update_is_not_waited_for(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    row = {"step": 10, "time": 1.0, "train/episodes": 4, "train/success_rate": 0.5}
    (launch.output_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert launch.supervisor.step(time.monotonic()) is None
    assert not launch.supervisor.learned  # a resumed run's metrics may be ahead of it, until it listens
    launch.signal("learner", signal.SIGSTOP)
    launch.until(lambda: launch.supervisor.status is None)
    assert run_line(launch.supervisor) == "update 10 of 10, success 50%, the learner saves"


def test_asked_before_the_learner_listens_it_is_not_said_to_save(house):
    launch = house({"learner": ["silent compiling"], "0": ["run"]})
    launch.until(lambda: launch.starts("learner"))
    launch.supervisor.ask_to_stop()
    launch.supervisor.step(time.monotonic())
    assert launch.said[-1] == "stopping: the learner ends; once more to kill everything at once"
    launch.supervisor.close()


def test_asked_twice_everything_is_killed_at_once(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    launch.signal("learner", signal.SIGSTOP)  # it does not save
    launch.supervisor.ask_to_stop()
    assert launch.supervisor.step(time.monotonic()) is None
    launch.supervisor.ask_to_stop()
    started = time.monotonic()
    outcome = launch.end()
    assert time.monotonic() - started < 5
    assert outcome.end == "stopped"
    assert outcome.line.startswith("killed: nothing is saved; begin anew with: pirl-launch ")
    assert launch.processes["learner"].poll() == -signal.SIGKILL
    assert not launch.processes["0"].running


def test_what_goes_wrong_while_the_learner_saves_does_not_keep_it_from_saving(house):
    launch = house({"learner": ["slow"], "0": ["run"]})
    launch.until(lambda: launch.beats("learner"))
    launch.supervisor.ask_to_stop()
    launch.supervisor.step(time.monotonic())
    time.sleep(0.5)  # it has heard of it
    launch.supervisor.close()  # as after an error
    assert launch.processes["learner"].poll() == 128 + signal.SIGTERM
    assert (launch.output_dir / "checkpoints" / "last").exists()


def test_asked_while_the_last_processes_end_they_are_killed_at_once(house):
    launch = house({"0": ["run"]})
    launch.until(lambda: launch.beats("0"))
    launch.signal("0", signal.SIGSTOP)  # it does not end
    launch.signal("learner", signal.SIGTERM)
    launch.until(lambda: launch.outcome is not None)
    threading.Timer(0.5, launch.supervisor.ask_to_stop).start()
    started = time.monotonic()
    assert launch.end().end == "stopped"
    assert time.monotonic() - started < 5


def test_episodes_are_counted_over_restarts(house):
    launch = house({"0": ["run"]})
    (actor,) = launch.supervisor.actors
    launch.until(lambda: actor.registered)
    assert (actor.episodes, actor.version) == (2, 1)
    launch.signal("0", signal.SIGKILL)
    launch.until(lambda: launch.starts("0") == 2)
    assert not actor.registered
    launch.until(lambda: actor.registered)
    assert actor.episodes == 4


def test_policy_servers_are_started_with_the_learner_and_again_when_they_end(house):
    launch = house(
        {"0": ["run"], "server0": ["exit 0 gone", "run"], "server1": ["run"]}, server_devices=(5, 6)
    )
    launch.until(lambda: launch.beats("0", "server0", "server1"))
    assert (launch.starts("server0"), launch.starts("server1")) == (2, 1)
    arguments = dict(launch.started)
    assert arguments["server1"] == ("--config_path=cfg.json", "--replica=1")  # the plugin is the actors'
    assert any(
        line.startswith("policy server 0 ended with status 0 and is started again") for line in launch.said
    )
    launch.supervisor.ask_to_stop()
    assert launch.end().end == "stopped"
    assert not any(process.running for process in launch.processes.values())


def test_a_policy_server_that_stands_still_is_killed_and_started_again(house, monkeypatch):
    monkeypatch.setattr(policy_server, "GONE_AFTER_S", 0.1)
    launch = house({"0": ["run"], "server0": ["silent loading", "run", "run"]}, hang_after_s=3.0)
    launch.until(lambda: launch.beats("0"))
    time.sleep(4)
    assert launch.starts("server0") == 1  # one that loads is left alone
    launch.signal("server0", signal.SIGKILL)
    launch.until(lambda: launch.beats("server0"))
    launch.signal("server0", signal.SIGSTOP)
    launch.until(lambda: launch.starts("server0") == 3 and launch.beats("server0"))
    assert any(line.startswith("policy server 0 was not heard of for ") for line in launch.said)
    assert launch.starts("0") == 1


def test_a_run_whose_policy_servers_are_all_refused_is_saved_and_ends_with_the_reason(house):
    refused = "error: the learner refused this policy server: it is another's."
    launch = house({"0": ["run"], "server0": [f"exit 1 {refused}"]})
    outcome = launch.end()
    assert outcome.end == "failed"
    assert outcome.line.startswith("no policy server is left; ")
    assert outcome.line.endswith(refused.removeprefix("error: "))
