"""``pretrained_model/``: a trained policy as the checkpoint LeRobot itself would have saved.

Whoever has LeRobot loads it without this package: stock policy, stock sampler, stock processors. What the
recipe adds to a policy's config while it trains (``bridge.plugin.recipe_config``) stays out.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.envs.configs import LiberoEnv
from lerobot.policies.xvla.configuration_xvla import XVLAConfig as LeRobotXVLAConfig
from lerobot.policies.xvla.processor_xvla import (
    XVLAAddDomainIdProcessorStep,
    XVLAImageNetNormalizeProcessorStep,
    XVLAImageToFloatProcessorStep,
)
from lerobot.processor import (
    TokenizerProcessorStep,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_IMAGES, OBS_LANGUAGE_TOKENS

from bridge.plugin.recipe_config import OBS_DOMAIN_ID
from bridge.weights.beside import carry_tokenizer, change_config
from bridge.weights.consumers import prepare_for, take_any_size
from bridge.weights.state_dict import Tree, write_safetensors
from pirl_jax.run_folder.layout import MODEL, final_path
from pirl_jax.xvla.config import XVLAConfig

Stats = Mapping[str, Mapping[str, Sequence[float] | torch.Tensor]]


def export_pretrained(
    params: Tree,
    cfg: TrainPipelineConfig,
    folder: Path,
    *,
    domain_id: int | None = None,
    dataset_stats: Stats | None = None,
    for_libero: bool | None = None,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write ``config.json``, ``model.safetensors``, the processors and ``train_config.json``.

    Args:
        params: The complete parameter tree (JAX on any device, or NumPy). Tensors keep their dtypes: LeRobot
            casts to ``policy.dtype`` when it loads, and a float32 head loses nothing on the way to a resumed
            run.
        cfg: The run's config, with its policy, which may be bound to the recipe. Left unchanged.
        folder: Filled; made if missing.
        domain_id: The embodiment that the exported preprocessor announces. None: the environment's, else 0.
        dataset_stats: Statistics for ``policy.normalization_mapping``, by feature. None: the recipe's, if
            any.
        for_libero: For ``lerobot-eval``, else for ``lerobot-train`` (``bridge.weights.consumers``). None: if
            the config's environment is LIBERO.
        image_size: (h, w) of the images it was trained on, to which one that does not resize will resize
            others. None: it will not.

    Raises:
        ValueError: The policy is no X-VLA.
        OSError: ``policy.tokenizer_name`` is a folder without a tokenizer, or ``folder`` cannot be written.
    """
    if not isinstance(cfg.policy, LeRobotXVLAConfig):
        raise ValueError(f"only X-VLA policies can be exported; got {type(cfg.policy).__name__}.")
    domain = getattr(cfg.env, "domain_id", 0) if domain_id is None else domain_id
    if for_libero is None:
        for_libero = isinstance(cfg.env, LiberoEnv)
    if dataset_stats is None:
        dataset_stats = getattr(getattr(cfg, "algorithm", None), "dataset_stats", None)
    folder.mkdir(parents=True, exist_ok=True)
    policy = stock_policy_config(cfg.policy)
    write_processors(folder, policy, domain, dataset_stats)
    write_safetensors(folder / MODEL, params)
    stored = copy.copy(cfg)
    stored.policy = policy
    stored._save_pretrained(folder)
    # Where the weights came from is the run's history, not the policy's. Where they go is neither: whoever
    # trains the policy further would push to the same place.
    alone = dataclasses.replace(policy, pretrained_path=None, push_to_hub=False, repo_id=None)
    alone._save_pretrained(folder)
    # LeRobot takes its user's; `cpu`, which a learner's torch may say, would hold on a machine with a GPU.
    change_config(folder, device=None)
    take_any_size(folder, image_size)
    prepare_for(folder, "eval" if for_libero else "train")
    carry_tokenizer(policy.tokenizer_name, folder, final_path(folder))


def policy_config(policy: PreTrainedConfig) -> XVLAConfig:
    """Return the architecture that LeRobot's policy config describes.

    Raises:
        ValueError: It is not an X-VLA, or one that cannot be built.
    """
    return XVLAConfig.from_dict(draccus.encode(policy, PreTrainedConfig))


def stock_policy_config(policy: LeRobotXVLAConfig) -> LeRobotXVLAConfig:
    """Return LeRobot's config without anything the recipe put into it or attached to it.

    The number of views is settled and generated cameras are taken out, because LeRobot counts those again
    each time it loads a config and would build a longer sequence than the one trained on.
    """
    settled = copy.deepcopy(policy)
    settled.validate_features()
    generated = {f"{OBS_IMAGES}.empty_camera_{index}" for index in range(policy.empty_cameras)}
    left_out = {OBS_LANGUAGE_TOKENS, OBS_DOMAIN_ID, *generated}
    # `replace` makes a new instance: attributes that are not fields do not come along.
    features = settled.input_features or {}
    return dataclasses.replace(
        settled,
        input_features={name: feature for name, feature in features.items() if name not in left_out},
        domain_feature_key=None if policy.domain_feature_key == OBS_DOMAIN_ID else policy.domain_feature_key,
    )


def write_processors(
    folder: Path, policy: LeRobotXVLAConfig, domain_id: int, dataset_stats: Stats | None
) -> None:
    """Write ``policy_preprocessor.json``, ``policy_postprocessor.json`` and their statistics, for training.

    These are the steps of LeRobot's ``make_xvla_pre_post_processors``, put together here so that no tokenizer
    has to be loaded (from the hub, perhaps) to save a checkpoint, and so that the domain id is the run's own.
    """
    stats = {
        feature: {name: torch.as_tensor(values, dtype=torch.float32) for name, values in entry.items()}
        for feature, entry in (dataset_stats or {}).items()
    }
    steps = make_default_policy_processor_steps(policy, stats or None)
    tokenizer = TokenizerProcessorStep(
        tokenizer=policy.tokenizer_name,  # stands in for a tokenizer object, which is not saved
        max_length=policy.tokenizer_max_length,
        padding=policy.pad_language_to,
        padding_side=policy.tokenizer_padding_side,
    )
    tokenizer.tokenizer, tokenizer.tokenizer_name = None, policy.tokenizer_name
    preprocessor, postprocessor = make_policy_processor_pipelines(
        input_steps=[
            steps.rename_observations,
            steps.add_batch_dim,
            tokenizer,
            XVLAImageToFloatProcessorStep(),
            XVLAImageNetNormalizeProcessorStep(),
            XVLAAddDomainIdProcessorStep(domain_id=domain_id),
            steps.to_device,
            steps.normalize,
        ],
        output_steps=[steps.unnormalize, steps.to_cpu],
    )
    preprocessor.save_pretrained(folder)
    postprocessor.save_pretrained(folder)
