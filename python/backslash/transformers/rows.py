"""Texts to the rows of tokens that a model is run on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from backslash.errors import ConfigurationError

ROW_TOKENS = 512
"""Longest row: enough context for what layers see, and little memory for logits."""


def rows(model: Any, tokenizer: Any, texts: str | Iterable[str], tokens: int) -> list[torch.Tensor]:
    """About `tokens` tokens in rows, each a 1-dimensional tensor of ids.

    A model that writes text gets full rows, of texts one after the other with the end of text between them. Any other gets one
    row for each text, with the special tokens of its tokenizer, cut where it is longer than the model takes.
    """
    texts = [texts] if isinstance(texts, str) else texts
    context = getattr(model.config, "max_position_embeddings", None) or ROW_TOKENS
    length = min(context, ROW_TOKENS)
    cut = _consecutive if model.can_generate() else _one_by_one
    found = cut(tokenizer, texts, length, tokens)
    if not found:
        raise ConfigurationError("the calibration texts have no tokens: pass some tens of thousands, ten per input of a layer")
    return found


def _consecutive(tokenizer: Any, texts: Iterable[str], length: int, tokens: int) -> list[torch.Tensor]:
    ids: list[int] = []
    for text in filter(None, texts):
        if ids and tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= tokens:
            break
    pieces = torch.tensor(ids[:tokens], dtype=torch.long).split(length)
    # A last row of a few tokens would count as much as a full one.
    full = [piece for piece in pieces if len(piece) == length]
    return full or list(pieces[:1] if ids else [])


def _one_by_one(tokenizer: Any, texts: Iterable[str], length: int, tokens: int) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    left = tokens
    for text in texts:
        if left <= 0:
            break
        ids = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        if ids:
            found.append(torch.tensor(ids, dtype=torch.long))
            left -= len(ids)
    return found
