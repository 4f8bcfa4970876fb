"""``pirl-watch`` as people start it."""

import html.parser
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from watched_run import write_config, write_rows

from bridge.watch.export import export
from bridge.watch.run import Run

COMMAND = [sys.executable, "-m", "bridge.watch"]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)


def test_it_starts_without_the_weight_of_a_learner():
    program = (
        "import sys, bridge.watch.export, bridge.watch.__main__;"
        "print(*{'jax', 'torch', 'lerobot', 'grpc', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_it_says_where_the_page_is_and_ends_at_ctrl_c(tmp_path):
    write_rows(tmp_path, 3)
    with subprocess.Popen(
        [*COMMAND, str(tmp_path), "--port=0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
            with urllib.request.urlopen(f"{address}news", timeout=10) as answer:
                assert json.load(answer)["now"]["rows"] == 3
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/none"], "there is no folder"),
        (["{}"], "There are runs in it: {}/train"),
        (["{}/train", "--port=70000"], "--port must be from 0 to 65535; got 70000."),
        (["{}/train", "--export={}/run.pdf"], "must end in .html."),
    ],
)
def test_what_cannot_be_shown_is_one_line(tmp_path, arguments, words):
    (tmp_path / "train").mkdir()
    write_rows(tmp_path / "train", 1)
    done = run(*(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words.format(tmp_path) in done.stderr


def test_a_port_that_is_taken_is_said_with_the_way_out(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(str(tmp_path), f"--port={taken.getsockname()[1]}")
    assert "give --port=0 for a free one" in done.stderr


class Links(html.parser.HTMLParser):
    """What a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")
        ]


def test_an_export_is_one_file_that_loads_nothing_and_holds_the_run(tmp_path):
    name = tmp_path / "</script><script>alert(1)</script>"
    os.makedirs(name)
    write_rows(name, 5)
    write_config(name)
    text = export(Run(name))
    links = Links()
    links.feed(text)
    assert links.found == []
    assert "alert(1)</script>" not in text
    data = re.search(r'<script type="application/json" id="exported">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(data)["about"]["path"] == str(name.resolve())
    assert json.loads(data)["now"]["rows"] == 5


def test_the_command_writes_an_export(tmp_path):
    write_rows(tmp_path, 2)
    done = run(str(tmp_path), f"--export={tmp_path}/run.html")
    assert done.returncode == 0, done.stderr
    assert "as it stands is in" in done.stdout
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
