"""The actor's half of PI-RL behind LeRobot's ``RLAlgorithm``: have chunks chosen, and pack them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from lerobot.rl.algorithms import factory
from lerobot.rl.algorithms.base import RLAlgorithm
from torch import Tensor

from bridge.plugin import seams, transport
from bridge.plugin.acting import Acting
from bridge.plugin.local import LocalActing
from bridge.plugin.processors import action_unnormalizer
from bridge.plugin.recipe_config import PiRLConfig
from bridge.plugin.served import LightPolicy, ServedActing
from bridge.wire.record import Record, pack


class PiRLAlgorithm(RLAlgorithm):
    """Replaces a policy's ``select_action`` by one that has a chunk chosen and packs it.

    Args:
        policy: A stock ``XVLAPolicy``, whose class and config stay stock, or the light one of a served run.
        config: Bound to the policy's config.

    Attributes:
        acting: Who chooses.

    Raises:
        bridge.plugin.seams.SeamError: This is LeRobot's actor, and the plugin did not take effect in it.
        SystemExit: The learner refuses this actor.
    """

    config_class = PiRLConfig
    name = "pi_rl"

    def __init__(self, policy: XVLAPolicy | LightPolicy, config: PiRLConfig) -> None:
        self.policy: Any = policy
        self.config: PiRLConfig = config  # pyright: ignore[reportIncompatibleVariableOverride]
        served = isinstance(policy, LightPolicy)
        self.acting: Acting = (
            ServedActing(policy, config.noise) if served else LocalActing(policy, config.noise)
        )
        self._unnormalize = action_unnormalizer(policy.config, config)
        seams.install(seams.SELECT_ACTION, policy, self.select_action)
        if transport.is_actor():
            transport.confirm()
        channel = transport.current()  # None: a test, or a program that asks for chunks
        if channel is not None:
            self.acting.channel = channel
            channel.episodes.register(config.actor_name, {**config.agreement(), **self.acting.agreement()})

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        """Choose a chunk and return it as a packed action row, float32 [1, R].

        Raises:
            bridge.wire.record.RecordError: The policy's output is not finite.
            SystemExit: The actor was told to stop while it waited for the learner.
        """
        decision = self.acting.decide(batch)
        # postprocess works in place; the latents must stay the model's own channels.
        chunk = self._unnormalize(self.policy.model.action_space.postprocess(decision.action.clone()))
        env_action = chunk[0, : self.policy.config.n_action_steps]
        if self.config.env_action is not None:
            env_action = self.config.env_action(env_action)
        record = Record(
            env_action=_array(env_action),
            latents=decision.latents,
            log_prob=decision.log_prob,
            denoise_step=decision.denoise_step,
            version=decision.version,
            number=decision.number,
            run=decision.run,
            feature_key=decision.feature_key,
        )
        return torch.from_numpy(pack(record))[None]

    def load_weights(self, weights: Mapping[str, Any], device: str | torch.device = "cpu") -> None:
        """Take over a parameter message."""
        self.acting.load_weights(weights)

    def update(self, batch_iterator: Any) -> Any:
        """Refuse: training is the learner's.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "PI-RL trains in its own learner: python -m pirl_jax.learner --config_path=…"
        )

    def make_optimizers_and_scheduler(self) -> dict[str, torch.optim.Optimizer]:
        """Return no optimisers: training is the learner's."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the learner owns what is trained besides the policy."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Tensor], device: str | torch.device = "cpu") -> None:
        """Accept an empty mapping.

        Raises:
            ValueError: There is something to load.
        """
        if state_dict:
            raise ValueError(f"PI-RL's actor has no tensors of its own; got {sorted(state_dict)}.")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def get_algorithm_class(name: str) -> type[RLAlgorithm]:
    """Return the algorithm registered under a name: this plugin's, else LeRobot's."""
    return PiRLAlgorithm if name == PiRLAlgorithm.name else _stock_get_algorithm_class(name)


_stock_get_algorithm_class = seams.install(seams.GET_ALGORITHM_CLASS, factory, get_algorithm_class)
