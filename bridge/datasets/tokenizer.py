"""A small word-level tokenizer made offline, which ``AutoTokenizer`` loads like any from the hub."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""BART's, with BART's ids 0 to 3."""


def build_tokenizer(folder: str | Path, sentences: Iterable[str]) -> int:
    """Write a tokenizer that knows the words of some sentences and calls all others ``<unk>``.

    Args:
        folder: Created if missing.
        sentences: Instructions, in any case and with any punctuation.

    Returns:
        The vocabulary's size.
    """
    normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Whitespace()
    words = {word for text in sentences for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))}
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))
    return len(vocabulary)
