"""What a checkpoint says of its inputs is obeyed or the run is refused: domain, tokeniser, statistics."""

import json

import numpy as np
import pytest
import torch
from lerobot.policies.xvla.configuration_xvla import NormalizationMode
from tiny import build_tokenizer, tiny_policy_config

from bridge.weights.announced import (
    Announced,
    agreed_domain,
    announced,
    check_action_mode,
    check_action_stats,
    check_images,
    check_policy,
    check_tokenizer,
    refuse_normalised_actions,
)
from bridge.weights.consumers import prepare_for
from bridge.weights.export import write_processors

STATS = {"action": {"mean": [0.1, 0.2, 0.3, 0.4], "std": [1.0, 2.0, 3.0, 4.0]}}


def exported(folder, *, domain_id=0, for_libero=False, **changes):
    """A policy's config, and what a checkpoint with its processors says."""
    folder.mkdir()
    policy = tiny_policy_config(tokenizer_name=str(build_tokenizer(folder / "tokenizer")), **changes)
    write_processors(folder, policy, domain_id, STATS)
    policy._save_pretrained(folder)
    if for_libero:
        prepare_for(folder, "eval")
    return policy, announced(folder)


def test_it_is_read_from_lerobots_own_files(tmp_path):
    mapping = {"VISUAL": NormalizationMode.IDENTITY, "ACTION": NormalizationMode.MEAN_STD}
    _, said = exported(tmp_path / "x", domain_id=3, normalization_mapping=mapping)
    assert said.domain_id == 3
    assert said.tokenizer == {"max_length": 10, "padding": "max_length", "padding_side": "right"}
    assert said.action_stats is not None
    np.testing.assert_allclose(said.action_stats["std"], [1, 2, 3, 4])


def test_a_checkpoint_may_be_silent(tmp_path):
    _, libero = exported(tmp_path / "libero", for_libero=True)
    assert (libero.domain_id, libero.action_stats, libero.image_steps) == (None, None, None)
    (tmp_path / "bare").mkdir()
    assert announced(tmp_path / "bare") == Announced(str(tmp_path / "bare"))


def test_on_libero_another_domain_than_lerobots_is_announced(tmp_path):
    """LeRobot's LIBERO processor says 0; the checkpoint's comes after it."""
    _, libero = exported(tmp_path / "libero", domain_id=3, for_libero=True)
    assert libero.domain_id == 3
    assert libero.image_steps is None


def test_images_that_lerobot_would_prepare_otherwise_are_refused(tmp_path):
    _, said = exported(tmp_path / "x")
    check_images(said)
    file = tmp_path / "x" / "policy_preprocessor.json"
    stored = json.loads(file.read_text())
    stored["steps"] = [s for s in stored["steps"] if s["registry_name"] != "xvla_imagenet_normalize"]
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="prepares images by xvla_image_to_float alone"):
        check_images(announced(tmp_path / "x"))


def test_another_reading_of_the_action_channels_is_refused(tmp_path):
    policy, _ = exported(tmp_path / "x")
    (tmp_path / "x" / "config.json").write_text(json.dumps({"type": "xvla", "action_mode": "ee6d"}))
    with pytest.raises(ValueError, match=r"Set policy.action_mode=ee6d"):
        check_action_mode(announced(tmp_path / "x"), policy)


def test_a_damaged_processor_is_named(tmp_path):
    (tmp_path / "policy_preprocessor.json").write_text(json.dumps({"steps": [{}]}))
    with pytest.raises(ValueError, match=r"policy_preprocessor.json is no processor of LeRobot's"):
        announced(tmp_path)


@pytest.mark.parametrize(
    ("checkpoint", "dataset", "environment", "asked", "agreed"),
    [
        (None, None, None, None, 0),
        (1, None, None, None, 1),
        (1, None, 1, None, 1),
        (None, [2], None, None, 2),
        (1, [0, 1], None, None, 1),
        (1, None, None, 2, 2),
        (1, [2], None, 2, 2),
        (None, None, 1, None, 1),
    ],
)
def test_the_domain_is_the_one_that_all_name(checkpoint, dataset, environment, asked, agreed):
    base = Announced("base", domain_id=checkpoint)
    assert agreed_domain(base, dataset, environment, asked, num_domains=3) == agreed


@pytest.mark.parametrize(
    ("checkpoint", "dataset", "environment", "asked", "named"),
    [
        (1, None, 0, None, "checkpoint: 1; env: 0; dataset: none"),
        (1, [0], None, None, "checkpoint: 1; env: none; dataset: 0"),
        (1, [2], 0, None, "checkpoint: 1; env: 0; dataset: 2"),
        (None, [2], None, 1, "domain_id: 1; dataset: 2"),
        (1, [2, 3], None, None, "checkpoint: 1; env: none; dataset: 2, 3"),
    ],
)
def test_who_disagrees_on_the_domain_is_named(checkpoint, dataset, environment, asked, named):
    base = Announced("folder/base", domain_id=checkpoint)
    with pytest.raises(ValueError, match=named) as refused:
        agreed_domain(base, dataset, environment, asked, num_domains=4)
    assert "folder/base" in str(refused.value)


@pytest.mark.parametrize(
    ("checkpoint", "dataset", "environment"),
    [(3, None, None), (None, [3], None), (None, None, -1), (0, [0, 3], None), (0, [-1, 0], None)],
)
def test_a_domain_that_the_policy_does_not_have_is_refused(checkpoint, dataset, environment):
    """JAX would read NaN past the last one, and count negative ones from the end."""
    with pytest.raises(ValueError, match=r"domain id (3|-1) is not one of the policy's"):
        agreed_domain(Announced("base", domain_id=checkpoint), dataset, environment, num_domains=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokenizer_max_length", 12), ("pad_language_to", "longest"), ("tokenizer_padding_side", "left")],
)
def test_another_way_to_tokenise_is_refused_with_the_remedy(tmp_path, field, value):
    policy, said = exported(tmp_path / "x")
    check_tokenizer(said, policy)
    before = getattr(policy, field)
    setattr(policy, field, value)
    with pytest.raises(ValueError, match=f"Set policy.{field}={before}"):
        check_tokenizer(said, policy)


def test_other_statistics_of_actions_are_refused(tmp_path):
    mapping = {"VISUAL": NormalizationMode.IDENTITY, "ACTION": NormalizationMode.MEAN_STD}
    _, said = exported(tmp_path / "x", normalization_mapping=mapping)
    check_action_stats(said, STATS)
    check_action_stats(said, {"action": {name: torch.tensor(x) for name, x in STATS["action"].items()}})
    with pytest.raises(ValueError, match=r"algorithm.dataset_stats.action.std is not what"):
        check_action_stats(said, {"action": {"mean": STATS["action"]["mean"], "min": [0.0] * 4}})
    other = {"action": {**STATS["action"], "std": [1.0, 2.0, 3.0, 4.5]}}
    with pytest.raises(ValueError, match=r"algorithm.dataset_stats.action.std is not what"):
        check_action_stats(said, other)


def test_another_way_to_normalise_actions_is_refused(tmp_path):
    mapping = {"VISUAL": NormalizationMode.IDENTITY, "ACTION": NormalizationMode.MEAN_STD}
    policy, said = exported(tmp_path / "x", normalization_mapping=mapping)
    check_policy(said, policy)
    for other in (NormalizationMode.MIN_MAX, NormalizationMode.IDENTITY):
        policy.normalization_mapping = {"ACTION": other}
        with pytest.raises(
            ValueError, match=f"ACTION is {other.value}, but .* un-normalises actions by MEAN_STD"
        ):
            check_policy(said, policy)
    with pytest.raises(ValueError, match=r"un-normalises actions by MEAN_STD: .*lerobot-train"):
        refuse_normalised_actions(said)
    refuse_normalised_actions(exported(tmp_path / "y")[1])


@pytest.mark.parametrize("normalised", [True, False])
def test_a_base_that_normalises_observations_is_refused_unless_it_has_no_numbers_for_it(
    tmp_path, monkeypatch, normalised
):
    if normalised:
        monkeypatch.setitem(STATS, "observation.state", {"mean": [0.0] * 4, "std": [1.0] * 4})
    mapping = {"STATE": NormalizationMode.MEAN_STD}
    policy, said = exported(tmp_path / "x", normalization_mapping=mapping)
    if not normalised:
        return check_policy(said, policy)
    with pytest.raises(ValueError, match=r"policy_preprocessor.json of .* normalises STATE by MEAN_STD"):
        check_policy(said, policy)


def test_statistics_of_actions_that_nobody_uses_are_not_compared(tmp_path):
    _, said = exported(tmp_path / "x")
    check_action_stats(said, {"action": {"mean": [9.0] * 4}})
