"""The X-VLA architecture as a frozen, hashable description, read from LeRobot's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

ACTION_DIMS = {"ee6d": 20, "agibot_ee6d": 20, "joint": 14, "franka_joint7": 20, "so101_bimanual": 20}
"""Model-side action dimension of every fixed action space; ``auto`` takes ``max_action_dim``."""

REAL_ACTION_DIMS = {**ACTION_DIMS, "franka_joint7": 7, "so101_bimanual": 12}
"""Robot-side action dimension of the same spaces."""

_MIN_PROPRIO = {"ee6d": 20, "joint": 14}
"""Smallest proprioception of the spaces that zero its gripper channels (``so101_bimanual``: exactly 20)."""


@dataclass(frozen=True)
class VisionConfig:
    """DaViT, Florence-2's vision tower, and the projector on top of it. Tuples have one entry a stage."""

    in_channels: int = 3
    depths: tuple[int, ...] = (1, 1, 9, 1)
    patch_size: tuple[int, ...] = (7, 3, 3, 3)
    patch_stride: tuple[int, ...] = (4, 2, 2, 2)
    patch_padding: tuple[int, ...] = (3, 1, 1, 1)
    patch_prenorm: tuple[bool, ...] = (False, True, True, True)
    embed_dim: tuple[int, ...] = (128, 256, 512, 1024)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    num_groups: tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation_function: str = "gelu"
    projection_dim: int = 1024
    max_temporal_embeddings: int = 100
    max_position_embeddings: int = 50
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        stages = len(self.embed_dim)
        if not stages == len(self.num_heads) == len(self.num_groups):
            raise ValueError(
                "vision_config embed_dim, num_heads and num_groups need one entry a stage; got "
                f"{stages}, {len(self.num_heads)} and {len(self.num_groups)}."
            )
        for name in ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm"):
            if len(getattr(self, name)) < stages:
                raise ValueError(f"vision_config.{name} needs {stages} entries; got {getattr(self, name)}.")
        for dim, heads, groups in zip(self.embed_dim, self.num_heads, self.num_groups):
            if dim % heads or dim % groups:
                raise ValueError(
                    f"vision_config.embed_dim {dim} must be divisible by its heads ({heads}) and groups "
                    f"({groups})."
                )
        if self.embed_dim[-1] % 2:
            raise ValueError(f"the last vision_config.embed_dim must be even; got {self.embed_dim[-1]}.")


@dataclass(frozen=True)
class TextConfig:
    """The BART encoder (its decoder is dropped)."""

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    d_model: int = 1024
    activation_function: str = "gelu"
    scale_embedding: bool = False
    init_std: float = 0.02
    pad_token_id: int | None = 1
    tie_word_embeddings: bool = True
    """False leaves ``encoder.embed_tokens`` a tensor of its own, which X-VLA never reads."""

    def __post_init__(self) -> None:
        if self.d_model % self.encoder_attention_heads:
            raise ValueError(
                f"text_config.d_model {self.d_model} must be divisible by encoder_attention_heads "
                f"{self.encoder_attention_heads}."
            )


@dataclass(frozen=True)
class XVLAConfig:
    """Everything of LeRobot's ``XVLAConfig`` that shapes the network, its inputs or its optimiser."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)

    chunk_size: int = 32
    n_action_steps: int = 32
    dtype: str = "float32"
    """Compute dtype of the VLM; the action head always computes in float32."""

    tokenizer_name: str = "facebook/bart-large"
    tokenizer_max_length: int = 64
    tokenizer_padding_side: str = "right"
    pad_language_to: str = "max_length"

    hidden_size: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_domains: int = 30
    len_soft_prompts: int = 32
    dim_time: int = 32
    max_len_seq: int = 512
    use_hetero_proj: bool = False

    action_mode: str = "ee6d"
    num_denoising_steps: int = 10
    use_proprio: bool = True
    max_state_dim: int = 32
    max_action_dim: int = 20
    action_feature_dim: int | None = None
    """Last dimension of ``output_features["action"]``; only ``auto`` depends on it."""
    domain_feature_key: str | None = None

    image_keys: tuple[str, ...] = ()
    """Camera features in the order of ``input_features``, without LeRobot's generated empty cameras."""
    num_views: int = 1
    """Views the head attends to, padding views included."""
    resize_imgs_with_padding: tuple[int, int] | None = None

    freeze_vision_encoder: bool = False
    freeze_language_encoder: bool = False
    train_policy_transformer: bool = True
    train_soft_prompts: bool = True

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.99)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 0.0
    optimizer_grad_clip_norm: float = 10.0
    optimizer_soft_prompt_lr_scale: float = 1.0
    optimizer_soft_prompt_warmup_lr_scale: float | None = None
    scheduler_warmup_steps: int = 1_000
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 2.5e-6

    def __post_init__(self) -> None:
        if self.chunk_size <= 0:
            raise ValueError(f"chunk_size must be positive; got {self.chunk_size}.")
        if self.n_action_steps > self.chunk_size:
            raise ValueError(
                f"chunk_size must be ≥ n_action_steps; got {self.chunk_size} < {self.n_action_steps}. "
                "Set policy.chunk_size or lower policy.n_action_steps."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16; got {self.dtype!r}.")
        if self.action_mode != "auto" and self.action_mode not in ACTION_DIMS:
            known = ", ".join(sorted([*ACTION_DIMS, "auto"]))
            raise ValueError(
                f"action_mode {self.action_mode!r} is not one of X-VLA's action spaces: {known}."
            )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads}."
            )
        if self.vision.projection_dim != self.text.d_model:
            raise ValueError(
                "image and text tokens share one sequence, so vision_config.projection_dim must equal "
                f"text_config.d_model; got {self.vision.projection_dim} and {self.text.d_model}."
            )
        needed = _MIN_PROPRIO.get(self.action_mode, 0)
        if self.dim_proprio < needed:
            raise ValueError(
                f"action_mode {self.action_mode!r} zeroes gripper channels of the proprioception and needs "
                f"use_proprio=true and max_state_dim ≥ {needed}; got {self.dim_proprio} channels."
            )
        if self.action_mode == "so101_bimanual" and self.dim_proprio != 20:
            raise ValueError(
                "action_mode 'so101_bimanual' pads the proprioception to 20 channels and needs "
                f"use_proprio=true and max_state_dim=20; got {self.dim_proprio} channels."
            )

    @property
    def dim_action(self) -> int:
        """Channels of the action as the network sees it."""
        return self.max_action_dim if self.action_mode == "auto" else ACTION_DIMS[self.action_mode]

    @property
    def real_action_dim(self) -> int:
        """Channels of the action as the robot sees it, after postprocessing."""
        if self.action_mode != "auto":
            return REAL_ACTION_DIMS[self.action_mode]
        return min(self.action_feature_dim or self.max_action_dim, self.max_action_dim)

    @property
    def dim_proprio(self) -> int:
        """Proprioception channels as the network sees them; 0 without ``use_proprio``."""
        return self.max_state_dim if self.use_proprio else 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> XVLAConfig:
        """Read LeRobot's X-VLA ``config.json``.

        Both dialects of ``florence_config`` are understood: transformers' own and Microsoft's remote-code
        one, which the published checkpoints carry. Keys that do not concern the network are left unread.

        Args:
            config: The parsed JSON object.

        Returns:
            The architecture LeRobot would build from the same file.

        Raises:
            ValueError: If a section is missing or describes a network X-VLA cannot be.
        """
        policy_type = config.get("type", "xvla")
        if policy_type != "xvla":
            raise ValueError(f"expected an X-VLA config (type 'xvla'); got type {policy_type!r}.")
        florence = config.get("florence_config") or {}
        for section in ("vision_config", "text_config"):
            if florence.get(section) is None:
                raise ValueError(f"florence_config.{section} is missing; X-VLA cannot be built without it.")

        own = {f.name for f in fields(cls)} - {
            "vision",
            "text",
            "image_keys",
            "num_views",
            "action_feature_dim",
        }
        values = {name: _hashable(config[name]) for name in own if name in config}
        values["action_mode"] = str(config.get("action_mode", cls.action_mode)).lower()

        visual = _features(config, "input_features", "VISUAL")
        if not visual:
            raise ValueError("X-VLA needs at least one VISUAL feature in input_features.")
        if values.get("use_proprio", True) and "observation.state" not in _features(
            config, "input_features", "STATE"
        ):
            raise ValueError(
                "use_proprio=true needs a STATE feature named observation.state in input_features."
            )
        empty_cameras = int(config.get("empty_cameras") or 0)
        generated = {f"observation.images.empty_camera_{i}" for i in range(empty_cameras)}
        action = _features(config, "output_features", "ACTION").get("action")

        return cls(
            vision=vision_config(florence["vision_config"]),
            text=text_config(florence["text_config"]),
            image_keys=tuple(key for key in visual if key not in generated),
            # Loading a saved config, LeRobot counts the generated cameras again. So do we.
            num_views=max(int(config.get("num_image_views") or 0), len(visual) + empty_cameras),
            action_feature_dim=action[-1] if action else None,
            **values,
        )


def vision_config(config: Mapping[str, Any]) -> VisionConfig:
    """Read ``florence_config.vision_config`` in either dialect.

    Raises:
        ValueError: If it asks for something other than Florence-2's DaViT with its projector.
    """
    vision = dict(config)
    if vision.get("model_type") not in (None, "davit", "florence_vision"):
        raise ValueError(
            f"vision_config.model_type must be davit or florence_vision; got {vision['model_type']!r}."
        )
    position = vision.pop("image_pos_embed", None)
    if position is not None:
        if position.get("type") != "learned_abs_2d":
            raise ValueError(f"image_pos_embed.type must be learned_abs_2d; got {position.get('type')!r}.")
        vision["max_position_embeddings"] = position["max_pos_embeddings"]
    temporal = vision.pop("visual_temporal_embedding", None)
    if temporal is not None:
        if temporal.get("type") != "COSINE":
            raise ValueError(f"visual_temporal_embedding.type must be COSINE; got {temporal.get('type')!r}.")
        vision["max_temporal_embeddings"] = temporal["max_temporal_embeddings"]
    source = vision.pop("image_feature_source", None)
    if source is not None and list(source) != ["spatial_avg_pool", "temporal_avg_pool"]:
        raise ValueError(
            f"image_feature_source must be [spatial_avg_pool, temporal_avg_pool]; got {source!r}."
        )
    if "dim_embed" in vision:
        vision["embed_dim"] = vision.pop("dim_embed")
    return VisionConfig(**_known(VisionConfig, vision))


def text_config(config: Mapping[str, Any]) -> TextConfig:
    """Read ``florence_config.text_config``; Microsoft's dialect is BART's, field for field.

    Raises:
        ValueError: If the language model is not BART.
    """
    text = dict(config)
    if text.get("model_type", "bart") not in ("bart", "florence2_language"):
        raise ValueError(f"text_config.model_type must be bart; got {text['model_type']!r}.")
    # BartConfig's attribute_map: the generic name, where given, overrides the specific one.
    aliases = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }
    for alias, name in aliases.items():
        if alias in text:
            text[name] = text.pop(alias)
    return TextConfig(**_known(TextConfig, text))


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    return {name: _hashable(value) for name, value in values.items() if name in names}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _features(config: Mapping[str, Any], group: str, kind: str) -> dict[str, tuple[int, ...]]:
    features = config.get(group) or {}
    return {name: tuple(ft["shape"]) for name, ft in features.items() if ft["type"] == kind}
