"""Instructions → token ids, the same in what actors send and in what datasets hold."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import AutoTokenizer


def token_ids(
    instructions: Iterable[str], tokenizer: str, max_length: int | None, padding: str, padding_side: str
) -> list[list[int]]:
    """Return each instruction's token ids, as LeRobot's ``TokenizerProcessorStep`` makes them.

    Args:
        instructions: Texts.
        tokenizer: Folder or hub id.
        max_length: Tokens after which an instruction is cut off.
        padding: ``max_length`` or ``longest``.
        padding_side: ``left`` or ``right``.
    """
    return AutoTokenizer.from_pretrained(tokenizer)(
        list(instructions),
        max_length=max_length,
        truncation=True,
        padding=padding,
        padding_side=padding_side,
    )["input_ids"]
