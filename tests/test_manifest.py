"""A checkpoint that is not as it was written is found before it is read."""

import json
import logging
import shutil

import pytest

from pirl_jax.run_folder import manifest
from pirl_jax.run_folder.layout import point


def checkpoint(output_dir, step):
    folder = output_dir / "checkpoints" / f"{step:06d}"
    for name in (
        "pretrained_model/train_config.json",
        "training_state/orbax/d/data",
        "training_state/x.json",
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{name} of {step}".encode())
    manifest.seal(folder)
    point("last", folder)
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


CONFIG = "checkpoints/last/pretrained_model/train_config.json"


def test_who_reads_but_the_config_does_not_read_the_weights(tmp_path, monkeypatch):
    """A launch looks at its checkpoint before the learner does, which reads all of it."""
    folder = tmp_path / "checkpoints" / "000001"
    for name in ("pretrained_model/model.safetensors", "training_state/training_step.json"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(2**20 + 1 if name.endswith("safetensors") else 10))
    manifest.seal(folder)
    hashed = []
    digest = manifest.digest
    monkeypatch.setattr(manifest, "digest", lambda path: hashed.append(path.name) or digest(path))
    assert manifest.damage(folder, quick=True) is None
    assert hashed == ["training_step.json"]
    assert manifest.damage(folder) is None
    assert sorted(hashed[1:]) == ["model.safetensors", "training_step.json"]
    (folder / "training_state/training_step.json").write_bytes(b"123456789.")
    assert "training_step.json has other content" in str(manifest.damage(folder, quick=True))
    (folder / "pretrained_model/model.safetensors").write_bytes(b"")
    assert "model.safetensors has 0 bytes" in str(manifest.damage(folder, quick=True))


def test_what_is_as_it_was_written_is_gone_on_from(tmp_path):
    checkpoint(tmp_path, 10)
    assert manifest.whole(tmp_path / CONFIG) == tmp_path / CONFIG


@pytest.mark.parametrize("number", range(4))
def test_one_flipped_bit_in_any_file_is_found_and_the_newest_whole_one_taken(tmp_path, number, caplog):
    """The manifest is one of the files."""
    for step in (10, 20, 30):
        folder = checkpoint(tmp_path, step)
    assert len(files(folder)) == 4
    flip(files(folder)[number])
    name = files(folder)[number].relative_to(folder).as_posix()
    with caplog.at_level(logging.WARNING):
        found = manifest.whole(tmp_path / CONFIG)
    assert found == tmp_path / "checkpoints/000020/pretrained_model/train_config.json"
    assert f"000030 is damaged: {name} " in caplog.text
    assert "Going on from" in caplog.text


@pytest.mark.parametrize("harm", ["missing", "longer", "no manifest", "nonsense"])
def test_other_damage_is_named(tmp_path, harm):
    folder = checkpoint(tmp_path, 10)
    data, listed = folder / "training_state/orbax/d/data", folder / manifest.MANIFEST
    words = {
        "missing": "training_state/orbax/d/data is missing",
        "longer": "training_state/orbax/d/data has 34 bytes instead of 33",
        "no manifest": "manifest.json does not say what belongs to it",
        "nonsense": "manifest.json does not say what belongs to it",
    }
    if harm == "missing":
        data.unlink()
    elif harm == "longer":
        data.write_bytes(data.read_bytes() + b"!")
    elif harm == "no manifest":
        listed.unlink()
    else:
        listed.write_text(json.dumps({"files": {"a": 3}}))
    with pytest.raises(manifest.DamageError, match=words[harm]):
        manifest.whole(tmp_path / CONFIG)


def test_a_checkpoint_named_by_its_step_is_that_or_none(tmp_path):
    for step in (10, 20, 30):
        folder = checkpoint(tmp_path, step)
    flip(folder / "training_state/x.json")
    with pytest.raises(manifest.DamageError, match="Whole are those of step 10, 20: name one of them"):
        manifest.whole(folder / "pretrained_model/train_config.json")


def test_where_none_is_whole_that_is_said(tmp_path):
    for step in (10, 20):
        flip(checkpoint(tmp_path, step) / "training_state/x.json")
    with pytest.raises(manifest.DamageError, match="No other checkpoint of this run is whole"):
        manifest.whole(tmp_path / CONFIG)


def test_what_is_no_checkpoint_is_none_of_its_business(tmp_path):
    assert manifest.whole(tmp_path / "cfg.json") == tmp_path / "cfg.json"
    assert manifest.whole(tmp_path / CONFIG) == tmp_path / CONFIG


def test_a_file_that_is_removed_on_purpose_is_not_missed(tmp_path):
    folder = checkpoint(tmp_path, 10)
    manifest.remove(folder, "training_state/x.json")
    assert manifest.damage(folder) is None
    shutil.copyfile(folder / manifest.MANIFEST, folder / "training_state/x.json")  # removed half-way: no harm
    assert manifest.damage(folder) is None
