"""Exit status and last line tell finished, stopped and failed apart."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
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
        "asked to stop (SIGINT) after 3 of 4; 3 are saved. To go on: "
        f"python -m pirl_jax.sft --config_path={config} --resume=true"
    ]


def test_stopped_before_anything_was_saved(tmp_path, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as caught:
        end(Stopped(signal.SIGTERM), tmp_path, 0, 4, "pirl_jax.learner")
    assert caught.value.code == 143
    assert "before anything was saved. The same command starts it anew." in caplog.text


@pytest.fixture
def stopping():
    """Start a process that waits for signals in its own way; return it once it does."""
    started = []

    def start(waits):
        code = (
            "import os, time\nfrom pirl_jax.ending import Stop\nstop = Stop('saving')\n"
            f"print('in', flush=True)\n{waits}"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in started:
        with process:
            process.kill()


IN_PYTHON = "while True: time.sleep(1)"
IN_XLA = (
    "import jax\njax.block_until_ready(jax.jit(lambda x: jax.lax.while_loop("
    "lambda y: y >= 0, lambda y: (y + 1) % 7, x))(1))"
)


@pytest.mark.parametrize("waits", [IN_PYTHON, IN_XLA])
def test_the_second_signal_ends_at_once(stopping, waits):
    """Also while a program runs that does not come back to Python."""
    process = stopping(waits)
    time.sleep(0 if waits == IN_PYTHON else 3)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "SIGINT: saving; once more ends at once\n"
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT


def test_ctrl_c_that_a_forked_child_hears_too_counts_once(stopping):
    """As the workers of a data loader do."""
    process = stopping("import warnings\nwarnings.simplefilter('ignore')\nos.fork()\n" + IN_PYTHON)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr.readline() == "SIGINT: saving; once more ends at once\n"
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)


def test_a_process_that_ends_quickly_still_does_what_is_to_be_done_at_its_end():
    code = (
        "import atexit, gc\nfrom pirl_jax.ending import end_quickly\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 1000))\nend_quickly()\n"
        "atexit.register(lambda: print('trackers finish', gc.get_freeze_count() > 1000))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["trackers finish False", "frozen True"]


LOSES_IT = {
    "a finalizer": """
class Told:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Told()
""",
    "a collection": """
gc.callbacks.append(lambda *_: told or (told.append(1), signal.raise_signal(signal.SIGINT)))
gc.collect()
""",
    "a library": """
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
""",
}
PROGRAM = """
import gc, signal, sys, threading, time
from pirl_jax import ending
told = []
ending.end_on_signal("; all is well")
ending._INSISTS_EVERY_S = 0.3
def played():
    try:
        yield
    finally:
        time.sleep(1)
        print("closed")
def finish():
    time.sleep(1)
    print("finished")
threading.Thread(target=finish).start()
generator = played()
next(generator)
try:
{loses}
    while True:
        time.sleep(0.1)
finally:
    generator.close()
    time.sleep(1)
    print("left")
"""


@pytest.mark.parametrize("loses", LOSES_IT)
def test_a_signal_whose_exit_is_lost_ends_the_process_all_the_same_and_its_blocks_are_left_once(loses):
    program = PROGRAM.format(loses=textwrap.indent(LOSES_IT[loses], "    "))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 130
    assert "stopped by SIGINT; all is well" in ended.stderr
    assert sorted(ended.stdout.split()) == ["closed", "finished", "left"]
