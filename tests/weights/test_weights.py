"""Weights cross between LeRobot and Flax bit for bit, or not at all and with one clear line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError
from lerobot.policies.xvla import modeling_xvla
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from safetensors.torch import load_file, save_file
from tiny import florence_config, tiny_policy_config

from bridge.weights import command, convert, keymap, state_dict
from bridge.weights import folder as folders
from bridge.weights.export import policy_config
from pirl_jax.trees import store

SHARED = "model.vlm.language_model.shared.weight"
EMBED = "model.vlm.language_model.encoder.embed_tokens.weight"
HEAD = "model.transformer.blocks.0.attn.qkv.weight"


def saved_policy(folder: Path, seed: int = 0, **overrides) -> XVLAPolicy:
    torch.manual_seed(seed)
    policy = XVLAPolicy(tiny_policy_config(**overrides))
    policy.save_pretrained(folder)
    (folder / "policy_preprocessor.json").write_text('{"name": "policy_preprocessor", "steps": []}')
    (folder / "policy_preprocessor_step_5_normalizer_processor.safetensors").write_bytes(b"statistics")
    return policy


def untied() -> dict:
    florence = florence_config()
    florence["text_config"]["tie_word_embeddings"] = False
    return florence | {"tie_word_embeddings": False}


@pytest.fixture(scope="module")
def lerobot_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policies") / "xvla"
    saved_policy(folder)
    return folder


def run(*arguments, capsys) -> tuple[int, str, str]:
    status = command.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def said(err: str) -> list[str]:
    """Lines of the log, without their time."""
    return [line.partition(" ")[2] for line in err.splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def vendored_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a native state dict to the older layout, as Microsoft's remote code would have saved it."""
    attention = {"spatial_block": "window_attn", "channel_block": "channel_attn"}
    result = {"model.vlm.language_model.final_logits_bias": torch.zeros(1, 32)}
    for key, tensor in state.items():
        name = key
        for row in keymap.TABLE:
            match = row.native_pattern.fullmatch(key.removeprefix("model."))
            if match and row.vendored:
                words = {"attn": attention.get(match.groupdict().get("half", ""))} | match.groupdict()
                name = "model." + row.vendored.format(**words)
        result[name] = tensor.T.contiguous() if name in keymap.TRANSPOSED else tensor
    return result


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"dtype": "bfloat16"},
        {"florence_config": untied()},
        {"use_hetero_proj": True, "action_mode": "ee6d", "max_state_dim": 20},
    ],
    ids=["float32", "bfloat16", "untied", "hetero"],
)
def test_round_trip_gives_lerobots_own_file_byte_for_byte(tmp_path, capsys, overrides):
    saved_policy(tmp_path / "lerobot", **overrides)
    status, out, err = run(tmp_path / "lerobot", tmp_path / "orbax", capsys=capsys)
    assert (status, said(err)) == (0, [f"writing {tmp_path / 'orbax'}"])
    assert "orbax (orbax)" in out
    assert "parameters" in out
    assert not (tmp_path / "orbax" / "model.safetensors").exists()
    status, out, err = run(tmp_path / "orbax", tmp_path / "back", capsys=capsys)
    assert (status, said(err)) == (0, [f"writing {tmp_path / 'back'}"])
    assert files(tmp_path / "back") == files(tmp_path / "lerobot")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "lerobot", "orbax"]


def test_stock_lerobot_loads_what_comes_back(tmp_path, lerobot_folder):
    convert.convert(lerobot_folder, tmp_path / "orbax")
    convert.convert(tmp_path / "orbax", tmp_path / "back")
    folders = (lerobot_folder, tmp_path / "back")
    want, got = (XVLAPolicy.from_pretrained(folder).state_dict() for folder in folders)
    assert want.keys() == got.keys()
    assert all(torch.equal(want[key], got[key]) for key in want)


def test_each_tensor_keeps_its_own_dtype(tmp_path, lerobot_folder):
    shutil.copytree(lerobot_folder, tmp_path / "mixed")
    state = load_file(lerobot_folder / "model.safetensors")
    mixed = {key: t.bfloat16() if ".vlm." in key else t for key, t in state.items()}
    save_file(mixed, tmp_path / "mixed" / "model.safetensors")
    _, params = folders.load_params(tmp_path / "mixed")
    assert params["vlm"]["language_model"]["shared"]["weight"].dtype == ml_dtypes.bfloat16
    assert params["transformer"]["pos_emb"].dtype == np.float32
    convert.convert(tmp_path / "mixed", tmp_path / "orbax")
    convert.convert(tmp_path / "orbax", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == mixed.keys()
    assert all(back[key].dtype == mixed[key].dtype and torch.equal(back[key], mixed[key]) for key in mixed)


def test_the_vendored_layout_is_translated_as_lerobot_translates_it(tmp_path, lerobot_folder):
    folder = tmp_path / "vendored"
    shutil.copytree(lerobot_folder, folder)
    native = XVLAPolicy.from_pretrained(lerobot_folder).state_dict()
    old = vendored_state(native)
    assert modeling_xvla._is_vendored_florence_state_dict(old)
    lerobots = modeling_xvla._remap_vendored_florence_state_dict(old)
    assert all(torch.equal(lerobots[key], native[key]) for key in native)

    save_file({key: tensor.clone() for key, tensor in old.items()}, folder / "model.safetensors")
    convert.convert(folder, tmp_path / "native", to="lerobot")
    assert files(tmp_path / "native") == files(lerobot_folder)
    convert.convert(folder, tmp_path / "orbax")
    convert.convert(tmp_path / "orbax", tmp_path / "back")
    assert files(tmp_path / "back") == files(lerobot_folder)


@pytest.mark.parametrize("kept", [(SHARED,), (EMBED,), (SHARED, EMBED)], ids=["shared", "embed", "both"])
def test_either_name_of_the_tied_embedding_will_do(tmp_path, lerobot_folder, kept):
    shutil.copytree(lerobot_folder, tmp_path / "x")
    state = load_file(lerobot_folder / "model.safetensors")
    table = state.pop(EMBED)
    save_file(state | {key: table.clone() for key in kept}, tmp_path / "x" / "model.safetensors")
    _, params = folders.load_params(tmp_path / "x")
    np.testing.assert_array_equal(params["vlm"]["language_model"]["shared"]["weight"], table.numpy())
    assert "embed_tokens" not in params["vlm"]["language_model"]["encoder"]


def test_tied_embeddings_that_differ_are_refused(tmp_path, lerobot_folder):
    shutil.copytree(lerobot_folder, tmp_path / "x")
    state = load_file(lerobot_folder / "model.safetensors")
    save_file(state | {SHARED: state[EMBED] + 1}, tmp_path / "x" / "model.safetensors")
    with pytest.raises(state_dict.WeightsError, match=r"embed_tokens\.weight and .*shared\.weight differ"):
        folders.load_params(tmp_path / "x")


def test_a_policy_in_memory_converts_without_a_copy():
    policy = XVLAPolicy(tiny_policy_config())
    params = state_dict.params_from_state(policy.state_dict(), policy_config(policy.config))
    with torch.no_grad():
        policy.model.transformer.pos_emb.fill_(3)
    np.testing.assert_array_equal(params["transformer"]["pos_emb"], 3)
    state = state_dict.to_torch_state(params)
    assert state["model.transformer.pos_emb"].data_ptr() == policy.model.transformer.pos_emb.data_ptr()
    assert set(policy.state_dict()) - set(state) == {EMBED}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_push_views_jax_memory_and_survives_donation(dtype):
    params = {"transformer": {"pos_emb": jnp.arange(64, dtype=dtype).reshape(1, 8, 8) + 0}, "vlm": {}}
    tensor = state_dict.to_torch_state(params)["model.transformer.pos_emb"]
    assert tensor.data_ptr() == params["transformer"]["pos_emb"].unsafe_buffer_pointer()
    jax.block_until_ready(jax.jit(lambda p: jax.tree.map(lambda x: x * 0, p), donate_argnums=0)(params))
    assert tensor.sum() == 64 * 63 / 2


def test_a_push_can_be_partial_and_rounded_as_jax_rounds():
    values = jax.random.normal(jax.random.key(0), (1, 50, 7))
    params = {"transformer": {"pos_emb": values, "norm": {"bias": values[0, 0]}}, "vlm": {"anything": values}}
    state = state_dict.to_torch_state(params, subset=("transformer",), dtype=torch.bfloat16)
    assert set(state) == {"model.transformer.pos_emb", "model.transformer.norm.bias"}
    rounded = np.asarray(values.astype(jnp.bfloat16)).view(np.int16)
    np.testing.assert_array_equal(state["model.transformer.pos_emb"].view(torch.int16).numpy(), rounded)


def test_read_only_arrays_are_copied_without_a_warning(recwarn):
    array = np.arange(3.0, dtype=np.float32)
    array.flags.writeable = False
    assert state_dict.to_torch(array).tolist() == [0, 1, 2]
    assert not recwarn


def rewrite(**changes):
    """Return a function that changes tensors of a LeRobot folder; None removes one."""

    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        for key, change in changes.items():
            state.pop(key, None)
            if change is not None:
                state[key] = change
        save_file(state, folder / "model.safetensors")

    return apply


def set_head(tensor: torch.Tensor | None):
    return rewrite(**{HEAD: tensor})


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def config_with(**changes):
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return apply


CORRUPTIONS = {
    "truncated": (truncate, "truncated or no safetensors file"),
    "garbage": (write("model.safetensors", "hello"), "truncated or no safetensors file"),
    "missing key": (set_head(None), f"{HEAD} is missing"),
    "missing embedding": (rewrite(**{EMBED: None}), f"{SHARED} is missing"),
    "extra key": (rewrite(**{"model.more": torch.ones(2)}), "model.more is not part of the model"),
    "decoder": (
        rewrite(**{"model.vlm.language_model.decoder.layers.0.fc1.bias": torch.ones(2)}),
        "decoder.layers.0.fc1.bias is not part of the model",
    ),
    "wrong shape": (
        set_head(torch.ones(48, 17)),
        f"{HEAD} has shape [48, 17]; config.json asks for [48, 16]",
    ),
    "NaN": (set_head(torch.full((48, 16), torch.nan)), f"{HEAD} holds 768 NaN or infinite values"),
    "infinity": (set_head(torch.full((48, 16), torch.inf).bfloat16()), f"{HEAD} holds 768 NaN or infinite"),
    "integers": (set_head(torch.ones(48, 16, dtype=torch.int32)), f"{HEAD} is int32; weights must be"),
    "float64": (
        set_head(torch.ones(48, 16, dtype=torch.float64)),
        f"{HEAD} is float64; weights must be float32",
    ),
    "float8": (
        set_head(torch.ones(48, 16).to(torch.float8_e4m3fn)),
        f"{HEAD} is torch.float8_e4m3fn; weights must be float32",
    ),
    "quantised": (set_head(torch.ones(48, 16, dtype=torch.int8)), f"{HEAD} is int8; weights must be float32"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "broken config": (write("config.json", "{"), "config.json does not describe an X-VLA policy"),
    "other policy": (write("config.json", '{"type": "act"}'), "got type 'act'"),
    "other config": (config_with(depth=2), "model.transformer.blocks.1.attn.proj.bias"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_checkpoint_gives_one_clear_line_and_no_output(tmp_path, capsys, lerobot_folder, name):
    corrupt, message = CORRUPTIONS[name]
    shutil.copytree(lerobot_folder, tmp_path / "x")
    corrupt(tmp_path / "x")
    status, out, err = run(tmp_path / "x", tmp_path / "deep" / "out", capsys=capsys)
    assert status == 1
    assert out == ""
    assert err.startswith("pirl-convert: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("damage", ["truncated data", "metadata lost", "NaN", "extra leaf"])
def test_a_corrupted_orbax_folder_gives_one_clear_line_and_no_output(
    tmp_path, capsys, lerobot_folder, damage
):
    convert.convert(lerobot_folder, tmp_path / "x")
    folder = tmp_path / "x" / "params"
    if damage == "truncated data":
        largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        message = "params is damaged"
    elif damage == "metadata lost":
        next(folder.rglob("_METADATA")).unlink()
        message = "params is damaged"
    else:
        params = store.load(folder)
        shutil.rmtree(folder)
        if damage == "NaN":
            params["transformer"]["pos_emb"] = np.full_like(params["transformer"]["pos_emb"], np.nan)
            message = "transformer.pos_emb holds 2048 NaN or infinite values"
        else:
            params["transformer"]["more"] = np.ones(2, np.float32)
            message = "transformer.more is not part of the model"
        store.save(folder, params)
    status, out, err = run(tmp_path / "x", tmp_path / "out", capsys=capsys)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert message in err
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_failure_while_writing_leaves_nothing(tmp_path, capsys, lerobot_folder, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(folders.store, "save", full)
    status, out, err = run(lerobot_folder, tmp_path / "out", capsys=capsys)
    assert (status, out) == (1, "")
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_is_replaced_only_on_request(tmp_path, capsys, lerobot_folder):
    out_folder = tmp_path / "out"
    convert.convert(lerobot_folder, out_folder)
    (out_folder / "old").write_text("")
    status, _, err = run(lerobot_folder, out_folder, capsys=capsys)
    assert status == 1
    assert "already exists. Pass --overwrite" in err
    assert (out_folder / "old").exists()
    status, _, _ = run(lerobot_folder, out_folder, "--overwrite", capsys=capsys)
    assert status == 0
    assert not (out_folder / "old").exists()

    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("")
    status, _, err = run(lerobot_folder, tmp_path / "precious", "--overwrite", capsys=capsys)
    assert status == 1
    assert "is not a checkpoint" in err
    assert (tmp_path / "precious" / "thesis.tex").exists()


def test_a_failed_overwrite_keeps_the_old_checkpoint(tmp_path, capsys, lerobot_folder, monkeypatch):
    convert.convert(lerobot_folder, tmp_path / "out")

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(folders.store, "save", full)
    status, _, _ = run(lerobot_folder, tmp_path / "out", "--overwrite", capsys=capsys)
    assert status == 1
    monkeypatch.undo()
    folders.load_params(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_hub_id_is_downloaded(tmp_path, lerobot_folder, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **kwargs):
        asked.update(repo_id=repo_id, **kwargs)
        return str(lerobot_folder)

    monkeypatch.setattr(folders, "snapshot_download", snapshot_download)
    monkeypatch.setattr(folders, "not_on_hub", lambda *_: None)
    to, _ = convert.convert("lerobot/xvla-base", tmp_path / "out", revision="v1")
    assert to == "orbax"
    assert asked["repo_id"] == "lerobot/xvla-base"
    assert asked["revision"] == "v1"


def test_without_a_network_a_hub_id_gives_one_clear_line(tmp_path, capsys, monkeypatch):
    def model_info(*args, **kwargs):
        raise LocalEntryNotFoundError("Cannot reach the hub.\nAnd more.")

    monkeypatch.setattr(HfApi, "model_info", model_info)
    monkeypatch.setattr(
        folders, "snapshot_download", lambda *_, **__: pytest.fail("it tries for half a minute")
    )
    status, _, err = run("lerobot/xvla-base", tmp_path / "out", capsys=capsys)
    assert status == 1
    assert "the Hugging Face hub cannot provide it (Cannot reach the hub)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("source", ["/nowhere/x", "./x", "name", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(tmp_path, capsys, source):
    status, _, err = run(source, tmp_path / "out", capsys=capsys)
    assert status == 1
    assert f"there is no folder {source}" in err


def test_a_training_checkpoint_stands_for_its_policy(tmp_path, lerobot_folder):
    shutil.copytree(lerobot_folder, tmp_path / "000010" / "pretrained_model")
    config, params = folders.load_params(tmp_path / "000010")
    assert config.chunk_size == 8
    assert set(params) == {"vlm", "transformer"}


def test_a_tokenizer_travels_along_and_is_found_where_it_arrives(tmp_path, lerobot_folder):
    source = tmp_path / "source"
    shutil.copytree(lerobot_folder, source)
    (source / "tokenizer").mkdir()
    (source / "tokenizer" / "tokenizer.json").write_text("{}")
    step_config = {"tokenizer_name": "/elsewhere", "max_length": 4}
    step = {"registry_name": "tokenizer_processor", "config": step_config}
    (source / "policy_preprocessor.json").write_text(json.dumps({"name": "p", "steps": [step]}))
    convert.convert(source, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").exists()
    pipeline = json.loads((tmp_path / "out" / "policy_preprocessor.json").read_text())
    here = str(tmp_path / "out" / "tokenizer")
    assert pipeline["steps"][0]["config"] == {"tokenizer_name": here, "max_length": 4}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tokenizer_name"] == here


MEMORY = """
import sys
from pathlib import Path
from bridge.weights import convert, folder, state_dict

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

source, out = sys.argv[1:]
state_dict.expected_tensors(folder.read_config(Path(source)))  # tracing is no part of the bound
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
convert.convert(source, out)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak memory counter")
@pytest.mark.slow
def test_conversion_needs_one_extra_copy_of_the_largest_tensor_at_most(tmp_path):
    florence = florence_config(vocab_size=200_000, width=32)
    policy = XVLAPolicy(tiny_policy_config(florence_config=florence, hidden_size=512, num_heads=8, depth=14))
    policy.save_pretrained(tmp_path / "lerobot")
    size = (tmp_path / "lerobot" / "model.safetensors").stat().st_size
    largest = max(tensor.nbytes for tensor in policy.state_dict().values())
    del policy
    assert 100e6 < size < 250e6
    slack = 24e6  # buffers of the process that do not grow with the weights
    for source, out in (("lerobot", "orbax"), ("orbax", "back")):
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path / source), str(tmp_path / out)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        assert int(result.stdout) <= 2 * size + largest + slack
    assert files(tmp_path / "back") == files(tmp_path / "lerobot")


AT_A_GLANCE = """
import sys
for name in ("torch", "jax", "lerobot", "transformers"):
    sys.modules[name] = None
from bridge.weights.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "line"), [(["absent", "out"], "there is no folder absent"), ([".", "."], "already exists")]
)
def test_what_can_be_refused_at_a_glance_is_refused_before_anything_heavy_is_imported(
    tmp_path, arguments, line
):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", AT_A_GLANCE, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pirl-convert: error: ")
    assert line in done.stderr
