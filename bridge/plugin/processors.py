"""The policy's pre- and postprocessor under the recipe: X-VLA's own, minus what the environment already did.

LeRobot's actor hands observations alone to the preprocessor, so the task string never reaches X-VLA's
tokenizer step and the domain id never its add-domain step. The environment therefore emits token ids and the
domain id as observations, and those two steps are left out. Actions leave the policy as packed rows, already
un-normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.configs import NormalizationMode, PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import TransitionKey
from lerobot.policies.xvla import processor_xvla
from lerobot.processor import (
    ObservationProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    make_default_policy_processor_steps,
    make_policy_processor_pipelines,
)
from lerobot.utils.constants import OBS_IMAGES

from bridge.plugin import seams
from bridge.plugin.recipe_config import PiRLConfig, is_bound, is_served


@dataclass
class ScaleUint8Images(ObservationProcessorStep):
    """Divide uint8 images by 255, whatever is on them.

    LeRobot's ``XVLAImageToFloatProcessorStep`` guesses the range from the brightest pixel and leaves an
    almost black image unscaled; the learner must see what the policy saw.
    """

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Return the observation with its uint8 images as float32 in [0, 1]."""
        return {
            key: value.float() / 255.0 if key.startswith(OBS_IMAGES) and value.dtype == torch.uint8 else value
            for key, value in observation.items()
        }

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Return the features unchanged."""
        return features


def make_processors(
    config: Any, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """Build the processors of a policy bound to the recipe, and X-VLA's stock ones for any other."""
    if not is_bound(config):
        return _stock_make_processors(config, dataset_stats)
    steps = make_default_policy_processor_steps(config, None)
    if is_served(config):  # the policy server takes observations as the environment emits them
        as_they_come = [steps.rename_observations, steps.add_batch_dim]
        return make_policy_processor_pipelines(input_steps=as_they_come, output_steps=[steps.to_cpu])
    input_steps = [
        steps.rename_observations,
        steps.add_batch_dim,
        ScaleUint8Images(),
        processor_xvla.XVLAImageNetNormalizeProcessorStep(),
        steps.to_device,
    ]
    return make_policy_processor_pipelines(input_steps=input_steps, output_steps=[steps.to_cpu])


def action_unnormalizer(policy_config: Any, config: PiRLConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that takes post-processed actions [..., R] to the environment's units."""
    mode = policy_config.normalization_mapping.get("ACTION", NormalizationMode.IDENTITY)
    if mode is NormalizationMode.IDENTITY:
        return lambda action: action
    stats = {
        key: {name: torch.as_tensor(values, dtype=torch.float32) for name, values in entry.items()}
        for key, entry in (config.dataset_stats or {}).items()
    }
    step = make_default_policy_processor_steps(policy_config, stats).unnormalize
    return lambda action: step({TransitionKey.ACTION: action.cpu()})[TransitionKey.ACTION]


_stock_make_processors = seams.install(seams.PROCESSOR_FACTORY, processor_xvla, make_processors)
