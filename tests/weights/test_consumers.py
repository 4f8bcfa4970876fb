"""An export is for one consumer and becomes the other's, with all else as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.policies import make_pre_post_processors
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from tiny import build_tokenizer, tiny_policy_config

from bridge.weights.command import main
from bridge.weights.consumers import consumer_of, prepare_for
from bridge.weights.convert import convert

PREPROCESSOR = "policy_preprocessor.json"


def saved(folder: Path, **overrides) -> Path:
    """A policy as LeRobot saves it."""
    config = tiny_policy_config(tokenizer_name=str(build_tokenizer(folder / "tokens")), **overrides)
    torch.manual_seed(0)
    XVLAPolicy(config).save_pretrained(folder / "policy")
    stats = {"observation.state": {"mean": torch.ones(5), "std": torch.full((5,), 2.0)}}
    for processor in make_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder / "policy")
    return folder / "policy"


def steps(folder: Path) -> dict[str, dict]:
    pipeline = json.loads((folder / PREPROCESSOR).read_text())
    return {step["registry_name"]: step.get("config", {}) for step in pipeline["steps"]}


def test_there_and_back_is_lerobots_own_preprocessor(tmp_path, capsys):
    own = saved(tmp_path)
    convert(own, tmp_path / "eval", consumer="eval")
    assert main(["--for=train", str(tmp_path / "eval"), str(tmp_path / "train")]) == 0
    assert f"{tmp_path / 'train'} (lerobot, for train)" in capsys.readouterr().out
    folders = own, tmp_path / "eval", tmp_path / "train"
    assert [consumer_of(folder) for folder in folders] == ["train", "eval", "train"]
    for folder, other in ((tmp_path / "eval", "TRAIN"), (tmp_path / "train", "EVAL")):
        assert not (folder / f"FOR_{other}.md").exists()
    before, after = steps(own), steps(tmp_path / "train")
    for step in (before, after):
        del step["tokenizer_processor"]["tokenizer_name"]
    assert list(after) == list(before)
    assert after == before
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1] == weights[2]
    make_pre_post_processors(tiny_policy_config(), pretrained_path=str(tmp_path / "train"))


def test_what_a_policy_normalises_itself_stays(tmp_path):
    mapping = {"VISUAL": NormalizationMode.IDENTITY, "STATE": NormalizationMode.MEAN_STD}
    own = saved(tmp_path, normalization_mapping=mapping | {"ACTION": NormalizationMode.IDENTITY})
    prepare_for(own, "eval")
    assert consumer_of(own) == "eval"
    preprocessor, _ = make_pre_post_processors(tiny_policy_config(), pretrained_path=str(own))
    state = preprocessor({"observation.state": torch.full((5,), 2.0), "task": "push"})["observation.state"]
    torch.testing.assert_close(state, torch.full((1, 5), 0.5))


@pytest.mark.parametrize("domain", [0, 1])
def test_a_domain_other_than_liberos_is_kept(tmp_path, domain):
    own = saved(tmp_path)
    file = own / PREPROCESSOR
    pipeline = json.loads(file.read_text())
    next(s for s in pipeline["steps"] if s["registry_name"] == "xvla_add_domain_id")["config"] = {
        "domain_id": domain
    }
    file.write_text(json.dumps(pipeline))
    prepare_for(own, "eval")
    assert ("xvla_add_domain_id" in steps(own)) == (domain != 0)
    prepare_for(own, "train")
    assert steps(own)["xvla_add_domain_id"] == {"domain_id": domain}


def test_cameras_that_lerobot_makes_up_have_no_say_in_the_size(tmp_path):
    own = saved(tmp_path, empty_cameras=1, max_len_seq=256)
    assert (
        "observation.images.empty_camera_0" in json.loads((own / "config.json").read_text())["input_features"]
    )
    prepare_for(own, "eval")
    assert json.loads((own / "config.json").read_text())["resize_imgs_with_padding"] == [64, 64]


def test_a_policy_without_processors_is_refused(tmp_path, capsys):
    own = saved(tmp_path)
    (own / PREPROCESSOR).unlink()
    assert main(["--for=eval", str(own), str(tmp_path / "out")]) == 1
    assert f"{PREPROCESSOR} is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
