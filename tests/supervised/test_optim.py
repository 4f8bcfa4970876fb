"""Both optimisers against torch's and LeRobot's own."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirl_jax.optim import adamw_direction, clip_by_global_norm, descend
from pirl_jax.supervised.optimizer import SupervisedOptimizer
from pirl_jax.supervised.step import split
from pirl_jax.trees import merge
from pirl_jax.xvla.trainable import is_frozen

torch = pytest.importorskip("torch")
lerobot_optim = pytest.importorskip("lerobot.optim")

NAMES = (
    "vlm.vision_tower.blocks_0.weight",
    "vlm.language_model.encoder.layers_0.weight",
    "vlm.language_model.shared.weight",
    "vlm.multi_modal_projector.weight",
    "transformer.vlm_proj.weight",
    "transformer.soft_prompt_hub.weight",
    "transformer.blocks_0.weight",
    "transformer.pos_emb",
)


def arrays(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: scale * rng.normal(size=(3, 2)) for name in NAMES}


def nested(flat):
    tree = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(value)
    return tree


def flattened(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(entry.key for entry in path): np.asarray(leaf) for path, leaf in leaves}


class Parameters(torch.nn.Module):
    """Torch parameters under dotted names."""

    def __init__(self, flat):
        super().__init__()
        for name, value in flat.items():
            *parents, leaf = name.split(".")
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, torch.nn.Module())
                module = getattr(module, parent)
            module.register_parameter(leaf, torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)))


def lerobot_training(config, flat, gradients, num_training_steps):
    """LeRobot's freezing, optimiser, scheduler and clipping, in ``lerobot_train.update_policy``'s order."""
    from lerobot.policies.xvla.modeling_xvla import XVLAModel

    model = Parameters(flat)
    model.config = types.SimpleNamespace(
        freeze_vision_encoder=config.freeze_vision_encoder,
        freeze_language_encoder=config.freeze_language_encoder,
        train_policy_transformer=config.train_policy_transformer,
        train_soft_prompts=config.train_soft_prompts,
    )
    XVLAModel._apply_freezing(model)
    trainable = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = lerobot_optim.XVLAAdamWConfig(
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        grad_clip_norm=config.grad_clip_norm,
        soft_prompt_lr_scale=config.soft_prompt_lr_scale,
        soft_prompt_warmup_lr_scale=config.soft_prompt_warmup_lr_scale,
    ).build(trainable)
    scheduler = lerobot_optim.CosineDecayWithWarmupSchedulerConfig(
        num_warmup_steps=config.warmup_steps,
        num_decay_steps=config.decay_steps,
        peak_lr=config.lr,
        decay_lr=config.decay_lr,
    ).build(optimizer, num_training_steps)
    for gradient in gradients:
        for name, p in model.named_parameters():
            p.grad = torch.tensor(gradient[name]) if p.requires_grad else None
        if config.grad_clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip_norm)
        optimizer.step()
        scheduler.step()
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("config", "num_training_steps"),
    [
        (SupervisedOptimizer(lr=1e-2, weight_decay=0.1, warmup_steps=4, decay_steps=9, decay_lr=1e-4), 20),
        (SupervisedOptimizer(lr=1e-2, grad_clip_norm=0.5, warmup_steps=30, decay_steps=90), 12),
        (SupervisedOptimizer(lr=1e-2, weight_decay=0.2, grad_clip_norm=0.0, soft_prompt_lr_scale=0.3), 12),
        (
            SupervisedOptimizer(
                lr=1e-2,
                weight_decay=0.1,
                grad_clip_norm=1.0,
                soft_prompt_warmup_lr_scale=0.01,
                warmup_steps=0,
                freeze_vision_encoder=True,
                freeze_language_encoder=True,
            ),
            12,
        ),
        (SupervisedOptimizer(lr=1e-2, grad_clip_norm=1.0, train_policy_transformer=False), 12),
        (SupervisedOptimizer(lr=1e-2, grad_clip_norm=1.0, train_soft_prompts=False), 12),
    ],
    ids=["decays", "short-run", "no-clip", "frozen-encoders", "frozen-transformer", "frozen-prompts"],
)
def test_supervised_optimiser_takes_lerobots_steps(config, num_training_steps):
    flat = arrays(0)
    gradients = [arrays(seed, scale=10.0 if seed % 2 else 0.01) for seed in range(1, 13)]
    expected = lerobot_training(config, flat, gradients, num_training_steps)
    with jax.enable_x64(True):
        trainable, frozen = split(nested(flat), partial(is_frozen, config))
        optimizer = config.build(trainable, num_training_steps)
        state = optimizer.init(trainable)
        for gradient in gradients:
            gradient, _ = split(nested(gradient), partial(is_frozen, config))
            updates, state = optimizer.update(gradient, state, trainable)
            trainable = jax.tree.map(jnp.add, trainable, updates)
        actual = flattened(merge(trainable, frozen))
    for name in NAMES:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)
        if is_frozen(config, name):
            np.testing.assert_array_equal(actual[name], flat[name])


def test_groups_follow_lerobots_substrings():
    labels = flattened(jax.tree.map(np.array, SupervisedOptimizer().labels(nested(arrays(0)))))
    assert labels["vlm.vision_tower.blocks_0.weight"] == "vlm"
    assert labels["transformer.vlm_proj.weight"] == "vlm"
    assert labels["transformer.soft_prompt_hub.weight"] == "soft_prompts"
    assert labels["transformer.blocks_0.weight"] == "other"


def test_settings_come_from_the_fields_of_lerobots_config():
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig

    assert SupervisedOptimizer.from_config(XVLAConfig()) == SupervisedOptimizer()


def test_ppo_optimiser_takes_torchs_adamw_steps_at_a_changing_lr():
    flat = arrays(0)
    model = Parameters(flat)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.05)
    with jax.enable_x64(True):
        params, tx = nested(flat), adamw_direction((0.9, 0.95), 1e-8, 0.05)
        state = tx.init(params)
        for seed, lr in enumerate((1e-2, 3e-3, 2e-2, 1e-2, 1e-3), 1):
            gradient = arrays(seed)
            for name, p in model.named_parameters():
                p.grad = torch.tensor(gradient[name])
            expected_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            clipped, norm = clip_by_global_norm(nested(gradient), 1.0)
            direction, state = tx.update(clipped, state, params)
            params = descend(params, direction, lr)
            assert float(norm) == pytest.approx(float(expected_norm), rel=1e-12)
        actual = flattened(params)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(actual[name], p.detach().numpy(), rtol=1e-9, err_msg=name)
