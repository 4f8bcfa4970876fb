"""The demo's X-VLA: every part of the published 0.9 B policy, at about 0.9 M parameters, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.xvla.configuration_xvla import XVLAConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

IMAGE_KEY = f"{OBS_IMAGES}.front"
CHUNK_SIZE = 8
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # BART's, in BART's order
_VOCABULARY_SIZE = 64
_TOKENS = 8
_WIDTH = 96


def demo_policy_config(tokenizer: Path | str, image_size: int = 64, state_dim: int = 5, action_dim: int = 4) -> XVLAConfig:
    """Return the demo's policy config.

    A three-stage DaViT turns a 64 px image into 16 tokens, a one-layer BART encoder joins them with the instruction, and
    a three-layer head denoises a chunk of eight actions in five steps: about 10 ms on one core.

    Args:
        tokenizer: Folder of ``save_tokenizer``.
        image_size: Height and width of the camera's image.
        state_dim: Channels of ``observation.state``.
        action_dim: Channels of ``action``.
    """
    widths = (32, 64, 96)
    vision = {
        "depths": [1, 1, 1],
        "patch_size": [7, 3, 3],
        "patch_stride": [4, 2, 2],
        "patch_padding": [3, 1, 1],
        "patch_prenorm": [False, True, True],
        "embed_dim": list(widths),
        "num_heads": [width // 16 for width in widths],
        "num_groups": [width // 16 for width in widths],
        "window_size": 4,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
        "projection_dim": _WIDTH,
        "max_position_embeddings": 16,
        "max_temporal_embeddings": 4,
    }
    text = {
        "model_type": "bart",
        "vocab_size": _VOCABULARY_SIZE,
        "d_model": _WIDTH,
        "encoder_layers": 1,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 2 * _WIDTH,
        # LeRobot builds the decoder before it drops it.
        "decoder_layers": 1,
        "decoder_attention_heads": 3,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    return XVLAConfig(
        input_features={
            IMAGE_KEY: PolicyFeature(type=FeatureType.VISUAL, shape=(3, image_size, image_size)),
            OBS_STATE: PolicyFeature(type=FeatureType.STATE, shape=(state_dim,)),
        },
        output_features={ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(action_dim,))},
        device="cpu",
        push_to_hub=False,
        chunk_size=CHUNK_SIZE,
        n_action_steps=CHUNK_SIZE,
        num_denoising_steps=5,
        florence_config={"vision_config": vision, "text_config": text},
        tokenizer_name=str(tokenizer),
        tokenizer_max_length=_TOKENS,
        hidden_size=128,
        depth=3,
        num_heads=4,
        mlp_ratio=2.0,
        num_domains=1,
        len_soft_prompts=4,
        dim_time=16,
        max_len_seq=64,
        action_mode="auto",
        max_action_dim=action_dim,
        max_state_dim=state_dim,
        optimizer_lr=1e-3,
        scheduler_warmup_steps=50,
        # The run's checkpoints are candidates for a start, so the learning rate stays where it is.
        scheduler_decay_lr=1e-3,
    )


def save_tokenizer(folder: Path | str, instructions: list[str]) -> Path:
    """Write a word-level tokenizer for the words of ``instructions``, and return its absolute folder.

    It needs no download, and lays tokens out as BART's does: ``<s> words </s> <pad>…``.

    Raises:
        ValueError: More words than the demo's vocabulary holds.
    """
    words = sorted({word for line in instructions for word in line.lower().split()})
    if len(_SPECIAL) + len(words) > _VOCABULARY_SIZE:
        raise ValueError(
            f"{len(words)} different words do not fit the demo's vocabulary of {_VOCABULARY_SIZE} tokens; use fewer."
        )
    ids = {word: index for index, word in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder = Path(folder).absolute()
    fast.save_pretrained(folder)
    return folder
