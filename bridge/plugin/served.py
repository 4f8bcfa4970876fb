"""Acting without a network: a policy server chooses the chunks (``algorithm.inference=served``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lerobot.policies.xvla.action_hub import build_action_space
from lerobot.policies.xvla.modeling_xvla import XVLAPolicy
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from bridge.plugin import seams, transport
from bridge.plugin.acting import Decision
from bridge.plugin.policy_server import PolicyServerClient
from bridge.plugin.recipe_config import is_served
from bridge.wire import act
from bridge.wire.protocol import OBS_DOMAIN_ID
from bridge.wire.record import NO_RUN
from pirl_jax.likelihood import modes
from pirl_jax.recipe import NoiseConfig
from pirl_jax.rollout.assignments import Assignment

log = logging.getLogger(__name__)


class LightModel(nn.Module):
    """What LeRobot's actor reads of X-VLA's network beside its parameters."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        space, sizes = config.action_mode.lower(), {}
        if space == "auto":
            feature = config.action_feature
            real = config.max_action_dim if feature is None else feature.shape[-1]
            sizes = {"real_dim": real, "max_dim": config.max_action_dim}
        self.action_space = build_action_space(space, **sizes)
        self.chunk_size: int = config.chunk_size
        self.dim_action: int = self.action_space.dim_action


class LightPolicy(nn.Module):
    """An X-VLA policy's config and action space, without parameters: it takes no memory and cannot act."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        config.validate_features()
        self.config = config
        self.model = LightModel(config)

    def reset(self) -> None:
        """Do nothing: what belongs to an episode is the algorithm's."""

    def select_action(self, batch: dict[str, Tensor]) -> Tensor:
        """Refuse: the algorithm puts its own in this place.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a light policy acts through algorithm.type=pi_rl alone")


class ServedActing:
    """``acting.Acting`` by a policy server, asked chunk by chunk.

    Args:
        policy: The light one.
        noise: The recipe's.

    Attributes:
        channel: To the learner, by which episodes are assigned and the policy server is found.
        version: The oldest of the parameters that may choose next: those that were assigned, or chose last.
    """

    def __init__(self, policy: LightPolicy, noise: NoiseConfig) -> None:
        self.policy = policy
        self.channel: Any = None
        self.version = 0
        K, model = policy.config.num_denoising_steps, policy.model
        self._latents = (modes.num_latents(noise, K), model.chunk_size, model.dim_action)
        self._server: PolicyServerClient | None = None
        self._assigned: Assignment | None = None
        self._run = self._chunk = 0

    def agreement(self) -> dict[str, Any]:
        return {}

    def decide(self, batch: dict[str, Tensor]) -> Decision:
        episodes = self.channel.episodes
        assigned = episodes.current
        if assigned is not self._assigned:  # not by its number, which may be handed out again
            self._assigned, self._run, self._chunk = assigned, episodes.run, 0
            self.version = assigned.version
        tokens = _array(batch[OBS_LANGUAGE_TOKENS])[0].astype(np.int64)
        question = act.Question(
            actor=episodes.actor,
            tokens=act.name_of(tokens),
            domain_id=int(batch[OBS_DOMAIN_ID].reshape(-1)[0]),
            noise_key=assigned.noise_key,
            chunk=self._chunk,
            run=self._run,
            version=self.version,  # another server than the last one's may lie behind it
            noise_free=assigned.evaluates,
        )
        if self._server is None:
            self._server = PolicyServerClient(self.channel, self._latents)
        answer, chunk = self._server.ask(question, self._observation(batch), tokens)
        self._chunk += 1
        if answer.run == self._run:
            self.version = answer.version
        return Decision(
            action=torch.from_numpy(chunk.action)[None],
            latents=chunk.latents,
            log_prob=chunk.log_prob,
            denoise_step=answer.denoise_step,
            version=answer.version,
            number=assigned.number,
            run=self._run if answer.run == self._run else NO_RUN,
            feature_key=answer.feature_key,
        )

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Ignore a message, which has no tensors: the server acts under the newest parameters by itself."""

    def _observation(self, batch: Mapping[str, Tensor]) -> act.Observation:
        views = [_array(batch[key]) for key in self.policy.config.image_features if key in batch]
        seen = self.policy.config.use_proprio and OBS_STATE in batch
        state = _array(batch[OBS_STATE])[0] if seen else np.zeros(0, np.float32)
        return act.Observation(np.concatenate(views), state.astype(np.float32))


def from_pretrained(pretrained_name_or_path: Any, *, config: Any = None, **kwargs: Any) -> Any:
    """Load a policy as LeRobot does; that of a served actor without its weights."""
    if config is not None and is_served(config) and transport.is_actor():
        log.info("A policy server acts: no weights are loaded here.")
        return LightPolicy(config)
    return _stock_from_pretrained(pretrained_name_or_path, config=config, **kwargs)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


_stock_from_pretrained = seams.install(seams.FROM_PRETRAINED, XVLAPolicy, from_pretrained)
