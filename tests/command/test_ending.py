"""Exit status and last line tell finished, stopped and failed apart."""

import logging
import signal
import subprocess
import sys
import time

import pytest

from pirl_jax.ending import end
from pirl_jax.run_folder.layout import point, write_about


class Stopped:
    def __init__(self, number=None):
        self.signal = number


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "checkpoints" / "000003"
    (folder / "training_state").mkdir(parents=True)
    write_about(folder, {"step": 3})
    point("last", folder)
    return tmp_path


def test_finished(saved, caplog):
    with caplog.at_level(logging.INFO):
        end(Stopped(), saved, 4, 4, "pirl_jax.learner")
    assert caplog.messages == [f"finished: 4 of 4, {saved}/checkpoints/last"]


def test_a_signal_after_the_last_update_is_too_late_to_stop_anything(saved):
    end(Stopped(signal.SIGTERM), saved, 4, 4, "pirl_jax.learner")


def test_stopped_says_how_to_go_on(saved, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as caught:
        end(Stopped(signal.SIGINT), saved, 3, 4, "pirl_jax.sft")
    assert caught.value.code == 130
    config = f"{saved}/checkpoints/last/pretrained_model/train_config.json"
    assert caplog.messages == [
        "stopped by SIGINT after 3 of 4; 3 are saved. To go on: "
        f"python -m pirl_jax.sft --config_path={config} --resume=true"
    ]


def test_stopped_before_anything_was_saved(tmp_path, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as caught:
        end(Stopped(signal.SIGTERM), tmp_path, 0, 4, "pirl_jax.learner")
    assert caught.value.code == 143
    assert "before anything was saved. The same command starts it anew." in caplog.text


def test_the_second_signal_ends_at_once():
    code = (
        "import time\nfrom pirl_jax.ending import Stop\nstop = Stop('saving')\nprint('in', flush=True)\n"
        "while True: time.sleep(1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "SIGINT: saving; once more ends at once\n"
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
