"""Lengths of examples in tokens of their base model, before any job and without torch.

Only for base models that are hosted here: of the others the web process has no tokenizer, and fetching one while
somebody types would be rude to both. The numbers are the engine's own for encoder-decoders; a causal row is counted as
one text, which the engine may cut by a token more or less where input and output meet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from compose.engine.types import Example
from registry import storage
from registry.models import BaseModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)
TOKENIZER_FILE = "tokenizer.json"
LARGEST_TOKENIZER_BYTES = 40 * 1024**2
MOST_TEXT = 400_000  # characters in all; counted while somebody types
SEQ2SEQ = "SEQ_2_SEQ_LM"
SEQ2SEQ_LIMIT = (
    2048  # the engine's LONGEST_SEQ2SEQ_INPUT, which cannot be imported without torch (a test pins both)
)


@dataclass(frozen=True)
class TokenCounts:
    """`limit` is what the base model takes; `too_long` are the numbers of the rows beyond it, from 1."""

    longest_input: int
    longest_output: int
    limit: int
    too_long: list[int]


def count_tokens(base_model: BaseModel | None, examples: Sequence[Example]) -> TokenCounts | None:
    """The lengths that decide; None where the tokenizer is not at hand or the text is too much to count while typing."""
    if base_model is None or not base_model.is_hosted or not examples:
        return None
    if sum(len(example.input) + len(example.output) for example in examples) > MOST_TEXT:
        return None
    tokenizer = _tokenizer(base_model.pk, base_model.commit)
    if tokenizer is None:
        return None
    is_seq2seq = base_model.task_type == SEQ2SEQ
    inputs = [len(found.ids) for found in tokenizer.encode_batch([example.input for example in examples])]
    outputs = [len(found.ids) for found in tokenizer.encode_batch([example.output for example in examples])]
    limit = _limit(base_model)
    sizes = [max(pair) if is_seq2seq else sum(pair) for pair in zip(inputs, outputs, strict=True)]
    return TokenCounts(
        longest_input=max(inputs),
        longest_output=max(outputs),
        limit=limit,
        too_long=[number for number, size in enumerate(sizes, 1) if size > limit],
    )


def _limit(base_model: BaseModel) -> int:
    config = base_model.config  # lists leave it out; it is fetched here
    names = (
        ["max_position_embeddings"]
        if base_model.task_type == SEQ2SEQ
        else ["max_position_embeddings", "n_positions"]
    )
    given = next((config[name] for name in names if config.get(name)), None)
    return int(given) if isinstance(given, int) and given > 0 else SEQ2SEQ_LIMIT


@lru_cache(maxsize=16)
def _tokenizer(base_model_id: int, commit: str) -> Tokenizer | None:
    """The tokenizer of one state of a base model's files; None if it has none that can be read."""
    from tokenizers import Tokenizer  # here, so that a process that counts nothing does not load it

    file = (
        BaseModel.objects.get(pk=base_model_id)
        .files.select_related("blob")
        .filter(path=TOKENIZER_FILE)
        .first()
    )
    if file is None or file.blob.size_bytes > LARGEST_TOKENIZER_BYTES:
        return None
    try:
        with storage.open_blob(file.blob) as content:
            tokenizer = Tokenizer.from_buffer(content.read())
    except Exception as error:  # the library raises plain Exception for what it cannot read
        logger.warning("The tokenizer of base model %s cannot be read: %s", base_model_id, error)
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
