"""What a newcomer reads first."""

import logging
import signal
import subprocess
import sys

import pytest

from pirl_jax.command import shorten_import_warnings


def test_the_report_on_a_missing_ffmpeg_is_one_line(caplog):
    shorten_import_warnings()
    report = "No codec.\nTraceback 5 % …\n'torchcodec' cannot be loaded (see the error above). Ok."
    for _ in range(2):
        logging.getLogger("lerobot.utils.import_utils").warning(report)
    assert [record.getMessage() for record in caplog.records] == ["'torchcodec' cannot be loaded. Ok."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_there_is_anything_to_save_is_one_line(number):
    code = (
        "import time\nfrom pirl_jax.command import run_command\n"
        "def load():\n    import tqdm\n    list(tqdm.tqdm(range(3)))\n    print('loading', flush=True)\n"
        "    time.sleep(60)\n"
        "run_command(print, load)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        said = process.stderr.read()
    assert "it/s" not in said  # a library's bar, where there is no terminal
    assert said.splitlines()[-1] == f"stopped by {number.name} before there was anything to save"
