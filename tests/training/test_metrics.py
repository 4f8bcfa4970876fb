"""The metrics file and the console line."""

import json
import logging
import math

import jax.numpy as jnp

from pirl_jax.training.metrics import MetricsWriter, console_line, read


def test_each_row_is_one_strict_json_line_there_at_once(tmp_path):
    with MetricsWriter(tmp_path / "run") as writer:
        writer.write(1, {"train/lr": jnp.float32(0.5), "train/approx_kl": math.nan, "train/episodes": 3})
        line = (tmp_path / "run" / "metrics.jsonl").read_text()
    row = json.loads(line)
    assert line.count("\n") == 1
    assert row.pop("time") > 1e9
    assert row == {"step": 1, "train/lr": 0.5, "train/approx_kl": None, "train/episodes": 3.0}


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path, caplog):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 5):
            writer.write(step, {"x": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "x":')  # killed while writing
    with caplog.at_level(logging.WARNING), MetricsWriter(tmp_path, resume_step=2) as writer:
        writer.write(3, {"x": 30})
    assert [(row["step"], row["x"]) for row in read(writer.path)] == [(1, 1), (2, 2), (3, 30)]
    assert "metrics.jsonl:5 is not a metrics row" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_console_line_shows_the_known_keys_that_are_there(tmp_path, caplog):
    metrics = {"train/approx_kl": 0.012345, "train/success_rate": 0.5, "train/unknown": 1.0}
    assert console_line(12, metrics) == "update 12 | success_rate 0.5 | approx_kl 0.0123"
    with caplog.at_level(logging.INFO), MetricsWriter(tmp_path) as writer:
        writer.write(12, metrics)
    assert console_line(12, metrics) in caplog.messages


def test_the_console_line_of_a_run_of_steps_says_how_much_is_left(tmp_path, caplog):
    metrics = {"train/loss": 2.4632, "train/lr": 1e-3, "train/update_s": 0.5, "train/x": 1.0}
    keys = ("train/loss", "train/update_s")
    with (
        caplog.at_level(logging.INFO),
        MetricsWriter(tmp_path, steps=1000, keys=keys) as writer,
    ):
        for step in (25, 1000):
            writer.write(step, metrics)
    assert caplog.messages == [
        f"metrics: {tmp_path}/metrics.jsonl, one JSON object a line",
        "step 25 of 1000 | loss 2.46 | update_s 0.5 | 8 min left",
        "step 1000 of 1000 | loss 2.46 | update_s 0.5",
    ]
