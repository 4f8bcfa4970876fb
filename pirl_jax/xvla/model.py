"""X-VLA: Florence-2's encoder in front of the soft-prompted action head (LeRobot's ``XVLAModel``)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pirl_jax.linear import Precision, full_precision, products_in
from pirl_jax.typing import Array, Bool, Float, Int, Params, typed
from pirl_jax.xvla.actions import action_space, prepare_targets
from pirl_jax.xvla.config import XVLAConfig
from pirl_jax.xvla.images import resize_with_pad
from pirl_jax.xvla.language import LanguageModel
from pirl_jax.xvla.transformer import SoftPromptedTransformer
from pirl_jax.xvla.vision import Projector, VisionTower

BUFFERS = ("pos_idx_to_embed", "beta", "eps")
"""Names of leaves that are buffers in torch: part of the tree, never trained and never decayed."""


class XVLAFeatures(NamedTuple):
    """What the head sees of an observation: it depends on the images and the instruction only."""

    vlm: Float[Array, "B S D"]
    """The encoder's output: tokens of the first view, then of the instruction."""
    aux: Float[Array, "B V1 S2 D"]
    """Image tokens of the other views that are present; the head takes zeros for those absent."""


class Florence2(nn.Module):
    """The part of Florence-2 that X-VLA keeps: vision tower, projector and BART encoder."""

    config: XVLAConfig

    def setup(self) -> None:
        self.vision_tower = VisionTower(self.config.vision)
        self.multi_modal_projector = Projector(self.config.vision)
        self.language_model = LanguageModel(self.config.text)

    def encode_images(self, images: Float[Array, "B C h w"]) -> Float[Array, "B S D"]:
        """Tokens of single images."""
        return self.multi_modal_projector(self.vision_tower(jnp.moveaxis(images, 1, -1)))

    def __call__(
        self,
        images: Float[Array, "B V C h w"],
        tokens: Int[Array, "B N"],
        image_mask: Bool[Array, "B V"] | None,
    ) -> XVLAFeatures:
        """Encode images and instructions, in the dtype of ``images``.

        Args:
            images: ImageNet-normalised, of the size that the tower takes; the first view is the primary one.
            tokens: Instruction token ids, padding included; those out of range give NaN.
            image_mask: False where a sample lacks a view; None: all are present.

        Raises:
            ValueError: If an input is larger than the position tables.
        """
        batch, views = images.shape[:2]
        visual = self.encode_images(images.reshape(-1, *images.shape[2:]))
        visual = visual.reshape(batch, views, *visual.shape[1:])
        if image_mask is not None:
            visual = jnp.where(image_mask[..., None, None], visual, 0)
        embedded = self.language_model.embed(tokens).astype(visual.dtype)
        encoded = self.language_model(jnp.concatenate([visual[:, 0], embedded], axis=1))
        return XVLAFeatures(vlm=encoded, aux=visual[:, 1:])


class XVLA(nn.Module):
    """The policy network. ``encode`` runs once an observation, ``predict`` once a denoising step."""

    config: XVLAConfig
    head_precision: Precision = "highest"
    """Of the products in the head, on float32 inputs."""

    def setup(self) -> None:
        self.vlm = Florence2(self.config)
        self.transformer = SoftPromptedTransformer(self.config)

    @typed
    def encode(
        self,
        images: Float[Array, "B V C h w"],
        tokens: Int[Array, "B N"],
        image_mask: Bool[Array, "B V"] | None = None,
    ) -> XVLAFeatures:
        """Encode observations, in ``config.dtype``.

        Args:
            images: ImageNet-normalised frames of the views present, the primary view first. They are resized
                if the config says so; views up to ``config.num_views`` that are absent take no room.
            tokens: Instruction token ids, padding included.
            image_mask: False where a sample lacks a view that others of its batch have. None: all are
                present.

        Returns:
            XVLAFeatures in the VLM's compute dtype.

        Raises:
            ValueError: If there is no view, or an input is larger than the position tables.
        """
        if images.shape[1] == 0:
            raise ValueError(
                "encode needs at least one camera view; got images of shape " + str(images.shape)
            )
        if self.config.resize_imgs_with_padding is not None:
            images = resize_with_pad(images, *self.config.resize_imgs_with_padding)
        bfloat16 = self.config.dtype == "bfloat16"
        dtype = jnp.bfloat16 if bfloat16 else jnp.promote_types(images.dtype, jnp.float32)
        with nullcontext() if bfloat16 else full_precision():
            return self.vlm(images.astype(dtype), tokens, image_mask)

    @typed
    def predict(
        self,
        features: XVLAFeatures,
        x_t: Float[Array, "B H A"],
        t: Float[Array, " B"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
    ) -> Float[Array, "B H A"]:
        """Predict the clean action chunk, before ``postprocess``.

        Args:
            features: Output of ``encode``.
            x_t: The noisy chunk in the model's action space.
            t: Time, 1 for pure noise and 0 for the clean action.
            proprio: State padded to ``config.dim_proprio`` (``prepare_proprio``).
            domain_id: The embodiment, below ``config.num_domains``; others give NaN.

        Returns:
            The clean action, in float32 whatever the VLM's dtype (float64 if ``x_t`` is), but for products,
            which are computed in ``head_precision``.
        """
        return self._head(features, x_t, t, proprio, domain_id)

    @typed
    def hidden(
        self,
        features: XVLAFeatures,
        x_t: Float[Array, "B H A"],
        t: Float[Array, " B"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
    ) -> Float[Array, "B H D"]:
        """Return the head's last hidden states at the action tokens, which ``predict`` decodes."""
        return self._head(features, x_t, t, proprio, domain_id, hidden=True)

    def _head(
        self,
        features: XVLAFeatures,
        x_t: Array,
        t: Array,
        proprio: Array,
        domain_id: Array,
        hidden: bool = False,
    ) -> Array:
        dtype = jnp.promote_types(x_t.dtype, jnp.float32)
        proprio, x_t = action_space(self.config).preprocess(proprio.astype(dtype), x_t.astype(dtype))
        vlm, aux = (part.astype(dtype) for part in features)
        missing = max(0, self.config.num_views - 1 - aux.shape[1])
        aux = jnp.pad(aux, ((0, 0), (0, missing), (0, 0), (0, 0)))
        aux = aux.reshape(len(aux), -1, aux.shape[-1])
        with products_in(self.head_precision):
            return self.transformer(vlm, aux, x_t, t.astype(dtype), proprio, domain_id, hidden)

    @typed
    def supervised_loss(
        self,
        images: Float[Array, "B V C h w"],
        tokens: Int[Array, "B N"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
        action: Float[Array, "B H2 n"],
        noise: Float[Array, "B H A"],
        t: Float[Array, " B"],
        image_mask: Bool[Array, "B V"] | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """X-VLA's flow-matching loss by part: predict the action from ``t·noise + (1-t)·action``.

        Args:
            images: As in ``encode``.
            tokens: As in ``encode``.
            proprio: As in ``predict``.
            domain_id: As in ``predict``.
            action: The target chunk; cut or zero-padded to the model's shape.
            noise: Standard normal, in the model's shape.
            t: Times, e.g. of ``sample_times``.
            image_mask: As in ``encode``.

        Returns:
            The parts whose sum LeRobot minimises.
        """
        return self.head_loss(self.encode(images, tokens, image_mask), proprio, domain_id, action, noise, t)

    @typed
    def head_loss(
        self,
        features: XVLAFeatures,
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
        action: Float[Array, "B H2 n"],
        noise: Float[Array, "B H A"],
        t: Float[Array, " B"],
    ) -> dict[str, Float[Array, ""]]:
        """``supervised_loss`` of observations that are encoded already."""
        target = prepare_targets(action, self.config)
        time = t[:, None, None]
        pred = self.predict(features, noise * time + target * (1 - time), t, proprio, domain_id)
        return action_space(self.config).compute_loss(pred, target)

    def __call__(
        self,
        images: Float[Array, "B V C h w"],
        tokens: Int[Array, "B N"],
        x_t: Float[Array, "B H A"],
        t: Float[Array, " B"],
        proprio: Float[Array, "B P"],
        domain_id: Int[Array, " B"],
    ) -> Float[Array, "B H A"]:
        """Encode and predict in one go."""
        return self.predict(self.encode(images, tokens), x_t, t, proprio, domain_id)


def generate_actions(
    model: XVLA,
    params: Params,
    features: XVLAFeatures,
    noise: Float[Array, "B H A"],
    proprio: Float[Array, "B P"],
    domain_id: Int[Array, " B"],
    num_steps: int | None = None,
) -> Float[Array, "B H R"]:
    """Denoise with LeRobot's sampler, which keeps the first noise: ``x_t = t·noise + (1-t)·â``.

    Args:
        model: The network.
        params: Its parameters: ``vlm`` and ``transformer`` at the top, torch's names and layouts below.
        features: Output of ``encode``.
        noise: Standard normal, in the model's action shape.
        proprio: As in ``predict``.
        domain_id: As in ``predict``.
        num_steps: K; the config's ``num_denoising_steps`` by default.

    Returns:
        The robot's action chunk, postprocessed.
    """
    steps = max(1, model.config.num_denoising_steps if num_steps is None else num_steps)

    def step(action: Array, t: Array) -> tuple[Array, None]:
        x_t = noise * t + action * (1 - t)
        times = jnp.full(noise.shape[:1], t)
        clean = model.apply({"params": params}, features, x_t, times, proprio, domain_id, method="predict")
        return jnp.asarray(clean, action.dtype), None

    times = jnp.array([k / steps for k in range(steps, 0, -1)], noise.dtype)
    action, _ = jax.lax.scan(step, jnp.zeros_like(noise), times)
    return action_space(model.config).postprocess(action)


def sample_times(key: Array, batch: int) -> Float[Array, " B"]:
    """Stratified times in [0, 1), one uniform offset for the batch (LeRobot's ``XVLAModel.forward``)."""
    return (jax.random.uniform(key, (1,)) + jnp.arange(batch) / batch) % (1 - 1e-5)
