"""Rows of a metrics file while it is written."""

import json
import os

from bridge.watch.tail import Tail
from pirl_jax.training.metrics import MetricsWriter


def test_only_what_is_new_is_read_and_a_line_counts_once_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.read() == []  # not there yet
    with path.open("w") as file:
        file.write('{"step": 1}\n{"step": 2, "x"')
        file.flush()
        assert [row["step"] for row in tail.read()] == [1]
        assert tail.read() == []
        file.write(": 7}\n")
        file.flush()
        assert tail.read() == [{"step": 2, "x": 7}]
    assert (tail.broken, tail.rest, tail.beginning) == (0, 0, 0)


def test_what_is_no_row_is_left_out_and_counted(tmp_path):
    lines = [
        b'{"step": 1}', b"\xff\xfe\x00", b'{"step": "2"}', b"[1]", b"", b'{"step": 3, "x": ', b"[" * 100_000,
        b'{"step": true}', b'{"step": 4}',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    tail = Tail(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in tail.read()] == [1, 4]
    assert tail.broken == 6


def test_a_line_without_end_is_given_up_and_what_follows_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.watch.tail._AT_ONCE", 64)
    monkeypatch.setattr("bridge.watch.tail._LONGEST_ROW", 32)
    (tmp_path / "metrics.jsonl").write_text("x" * 200 + '\n{"step": 5}\n')
    tail = Tail(tmp_path / "metrics.jsonl")
    assert [row["step"] for _ in range(8) for row in tail.read()] == [5]


def test_a_long_file_is_read_in_parts_and_loses_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.watch.tail._AT_ONCE", 1000)
    rows = [{"step": number, "x": number / 7} for number in range(300)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tail, found, calls = Tail(tmp_path / "metrics.jsonl"), [], 0
    while more := tail.read():
        found, calls = found + more, calls + 1
    assert found == rows
    assert calls > 5


def test_a_resumed_run_puts_another_file_in_its_place(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"x": step})
    tail = Tail(writer.path)
    assert len(tail.read()) == 5
    with MetricsWriter(tmp_path, resume_step=2) as writer:  # the rows after its checkpoint are made again
        writer.write(3, {"x": 30})
    assert [row["x"] for row in tail.read()] == [1, 2, 30]
    assert tail.beginning == 1
    os.remove(writer.path)
    assert tail.read() == []
    assert tail.beginning == 2
