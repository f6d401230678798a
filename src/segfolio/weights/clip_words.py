"""Words as the numbers that CLIP's text encoder reads (Radford et al., 2021, arXiv 2103.00020): byte pairs."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.weights.hub import fetch

FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
START, END = 49406, 49407


def as_words(texts: Sequence[str], vocabulary: str | None, length: int) -> Tensor:
    """`[N, length]` int64, start, pieces and end of each text, cut off if need be, and 0 behind it.

    Args:
        vocabulary: a folder with CLIP's `vocab.json` and `merges.txt`, or a repository of the hub that has them, e.g.
            `openai/clip-vit-base-patch32`; None takes each byte for a piece, under CLIP's numbers, and needs no files.

    Raises:
        SegfolioError: no such files, or others.
    """
    if torch.get_default_device().type == "meta":  # of a network that is looked at and never run
        return torch.empty(len(texts), length, dtype=torch.int64)
    tokens = _tokenizer(vocabulary)(list(texts), padding="max_length", max_length=length, truncation=True)
    return torch.tensor(tokens["input_ids"]) * torch.tensor(tokens["attention_mask"])


@cache
def _tokenizer(vocabulary: str | None) -> Any:
    from transformers import CLIPTokenizer

    if vocabulary is None:
        return CLIPTokenizer(vocab=_bytes(), merges=[])
    folder = Path(vocabulary) if Path(vocabulary).is_dir() else fetch(vocabulary, *FILES)
    if not (folder / "tokenizer.json").is_file() and not all((folder / name).is_file() for name in FILES[:2]):
        raise SegfolioError(f"{vocabulary} holds no vocabulary; expected CLIP's {FILES[0]} and {FILES[1]}")
    try:
        found = CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise SegfolioError(f"{vocabulary} does not hold CLIP's vocabulary: {error}") from error
    return found


def _bytes() -> dict[str, int]:
    """CLIP's numbers of single bytes, within a word and at its end: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    pieces = [*map(chr, printable), *(chr(256 + place) for place in range(len(others)))]
    numbers = {piece: number for number, piece in enumerate([*pieces, *(f"{piece}</w>" for piece in pieces)])}
    return {**numbers, "<|startoftext|>": START, "<|endoftext|>": END}
