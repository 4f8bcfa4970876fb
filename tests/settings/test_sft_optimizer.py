"""``use_policy_training_preset=false``: LeRobot's own optimiser and schedules, number for number."""

import dataclasses

import numpy as np
import pytest
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.optim import AdamWConfig, XVLAAdamWConfig
from lerobot.optim.schedulers import (
    ConstantWithWarmupSchedulerConfig,
    CosineAnnealingWithWarmupSchedulerConfig,
    CosineDecayWithWarmupSchedulerConfig,
    DiffuserSchedulerConfig,
)
from tiny import tiny_policy_config

from bridge.settings.sft_config import SFTConfig
from bridge.weights.export import policy_config
from pirl_jax.supervised.optimizer import SupervisedOptimizer

STEPS = 30
ADAMW = XVLAAdamWConfig(
    lr=3e-3,
    betas=(0.8, 0.9),
    eps=1e-6,
    weight_decay=0.1,
    grad_clip_norm=2.0,
    soft_prompt_lr_scale=0.5,
    soft_prompt_warmup_lr_scale=0.2,
)


def config(tmp_path, optimizer=ADAMW, scheduler=None, **settings):
    return SFTConfig(
        dataset=DatasetConfig("test/demos"),
        policy=tiny_policy_config(),
        output_dir=tmp_path / "new",
        steps=STEPS,
        use_policy_training_preset=False,
        optimizer=optimizer,
        scheduler=scheduler or ConstantWithWarmupSchedulerConfig(num_warmup_steps=5),
        **settings,
    )


def recipe_of(cfg):
    return dataclasses.replace(
        SupervisedOptimizer.from_config(policy_config(cfg.policy)), **cfg.optimizer_numbers()
    )


@pytest.mark.parametrize(
    "scheduler",
    [
        ConstantWithWarmupSchedulerConfig(num_warmup_steps=5),
        ConstantWithWarmupSchedulerConfig(num_warmup_steps=0),
        CosineAnnealingWithWarmupSchedulerConfig(num_warmup_steps=6),
        CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=4, num_decay_steps=20, peak_lr=1e-3, decay_lr=1e-4
        ),
        CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=9, num_decay_steps=90, peak_lr=1e-2, decay_lr=1e-4
        ),
    ],
    ids=lambda scheduler: scheduler.type,
)
def test_a_schedule_is_lerobots(tmp_path, scheduler):
    cfg = config(tmp_path, scheduler=scheduler)
    cfg.validate()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = scheduler.build(optimizer, STEPS)
    wanted = []
    for _ in range(STEPS):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    ours = recipe_of(cfg).schedule(STEPS)(np.arange(STEPS))
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-7)


def test_every_number_of_the_optimizer_arrives(tmp_path):
    recipe = recipe_of(config(tmp_path))
    for field in dataclasses.fields(ADAMW):
        assert getattr(recipe, field.name) == getattr(ADAMW, field.name), field.name


def test_with_the_preset_the_policys_numbers_count(tmp_path, caplog):
    cfg = config(tmp_path)
    cfg.use_policy_training_preset = True
    cfg.validate()
    assert recipe_of(cfg).lr == cfg.policy.optimizer_lr != ADAMW.lr
    assert "optimizer.lr=0.003" in caplog.text
    assert "with use_policy_training_preset=true policy.optimizer_… count" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": AdamWConfig()}, "optimizer.type=adamw is not supported here.*xvla-adamw"),
        ({"scheduler": DiffuserSchedulerConfig()}, "scheduler.type=diffuser is not.*constant_with_warmup"),
    ],
)
def test_others_are_refused_by_name(tmp_path, settings, message):
    """LeRobot itself cannot build them for X-VLA, or they are of another library."""
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings).validate()
