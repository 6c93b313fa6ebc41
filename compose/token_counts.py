"""Lengths of examples in tokens of their base model, before any job and without torch.

A base model that is hosted here has its tokenizer with its files; of another a worker keeps it when it first fetches
the model, and until then the lengths are estimated from the letters and marked as that: fetching one while somebody
types would be rude to both. The numbers are the engine's own for encoder-decoders; a causal row is counted as one text,
which the engine may cut by a token more or less where input and output meet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from django.utils.text import Truncator

from compose.engine.types import Example
from compose.engine.wording import first_of
from compose.models import KeptTokenizer
from registry import storage
from registry.models import BaseModel, Blob

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

logger = logging.getLogger(__name__)
TOKENIZER_FILE = "tokenizer.json"
UNKNOWN = "<unk>"
LARGEST_TOKENIZER_BYTES = 40 * 1024**2
BYTES_A_TOKEN = 4
MOST_TEXT = 400_000  # characters in all; counted while somebody types
SEQ2SEQ = "SEQ_2_SEQ_LM"
SEQ2SEQ_LIMIT = (
    2048  # the engine's LONGEST_SEQ2SEQ_INPUT, which cannot be imported without torch (a test pins both)
)


@dataclass(frozen=True)
class TokenCounts:
    """`limit` is what the base model takes; `too_long` are the numbers of the rows beyond it, from 1.

    `unknown_inputs` and `unknown_outputs` are pieces of text that are not in its vocabulary, each once.
    `is_estimate`: no tokenizer is at hand yet, and all three are empty.
    """

    longest_input: int
    longest_output: int
    limit: int
    too_long: list[int]
    unknown_inputs: tuple[str, ...] = ()
    unknown_outputs: tuple[str, ...] = ()
    is_estimate: bool = False

    @property
    def warnings(self) -> list[str]:
        """That the base model can never write what is expected of it, or does not tell apart what it reads."""
        found = []
        if self.unknown_outputs:
            found.append(
                f"The base model has no word for {_quoted(self.unknown_outputs)} in the outputs, and nothing that is "
                "composed can write what it has no word for. Put it otherwise, or choose another base model."
            )
        if self.unknown_inputs:
            found.append(
                f"The base model does not know {_quoted(self.unknown_inputs)} in the inputs: to it, all words that it "
                "does not know are one and the same."
            )
        return found


def _quoted(words: Sequence[str]) -> str:
    return first_of((f"“{Truncator(word).chars(20)}”" for word in words), most=5)


def count_tokens(base_model: BaseModel | None, examples: Sequence[Example]) -> TokenCounts | None:
    """The lengths that decide; None where a tokenizer cannot be read or the text is too much to count while typing."""
    if base_model is None or not examples:
        return None
    if sum(len(example.input) + len(example.output) for example in examples) > MOST_TEXT:
        return None
    sha256 = _sha256(base_model)
    if sha256 is None:
        return None if base_model.is_hosted else _estimated(base_model, examples)
    try:
        tokenizer = _tokenizer(sha256)
    except Exception as error:  # whatever the storage's client raises; it may answer a moment later
        logger.warning("The tokenizer %s cannot be fetched: %s", sha256, error)
        return None
    if tokenizer is None:
        return None
    is_seq2seq = base_model.task_type == SEQ2SEQ
    sources = tokenizer.encode_batch([example.input for example in examples])
    targets = tokenizer.encode_batch([example.output for example in examples])
    inputs, outputs = ([len(found.ids) for found in side] for side in (sources, targets))
    limit = _limit(base_model)
    marks = 0 if is_seq2seq else _marks_of_one_text(tokenizer, base_model)
    sizes = [max(pair) if is_seq2seq else sum(pair) + marks for pair in zip(inputs, outputs, strict=True)]
    return TokenCounts(
        longest_input=max(inputs),
        longest_output=max(outputs),
        limit=limit,
        too_long=[number for number, size in enumerate(sizes, 1) if size > limit],
        unknown_inputs=_unknown(tokenizer, sources, [example.input for example in examples]),
        unknown_outputs=_unknown(tokenizer, targets, [example.output for example in examples]),
    )


def _marks_of_one_text(tokenizer: Tokenizer, base_model: BaseModel) -> int:
    """For a causal row: the tokens of its beginning and its end, less those that input and output have as two texts.

    The engine ends every row, whether or not the tokenizer does.
    """
    named = base_model.config.get("eos_token_id")
    ends = named if isinstance(named, list) else [named]
    of_a_text = tokenizer.encode("").ids
    begins = [token for token in of_a_text if token not in ends]
    return len(begins) + 1 - 2 * len(of_a_text)


def _unknown(tokenizer: Tokenizer, encoded: Sequence[Encoding], texts: Sequence[str]) -> tuple[str, ...]:
    """Pieces of the texts that became the one token for all that is not in the vocabulary, each once, in their order.

    A vocabulary of bytes has no such token, or never uses it.
    """
    name = (
        getattr(tokenizer.model, "unk_token", None) or UNKNOWN
    )  # of SentencePiece's the library tells no name
    unknown = tokenizer.token_to_id(name)
    pieces = (
        text[start:end].strip()
        for found, text in zip(encoded, texts, strict=True)
        for token, (start, end) in zip(found.ids, found.offsets, strict=True)
        if token == unknown
    )
    return tuple(dict.fromkeys(piece for piece in pieces if piece))


def _limit(base_model: BaseModel) -> int:
    config = base_model.config  # lists leave it out; it is fetched here
    names = (
        ["max_position_embeddings"]
        if base_model.task_type == SEQ2SEQ
        else ["max_position_embeddings", "n_positions"]
    )
    given = next((config[name] for name in names if config.get(name)), None)
    return int(given) if isinstance(given, int) and given > 0 else SEQ2SEQ_LIMIT


def _sha256(base_model: BaseModel) -> str | None:
    """Which bytes of our storage are its tokenizer, if we have it."""
    if base_model.is_hosted:
        return base_model.files.filter(path=TOKENIZER_FILE).values_list("blob__sha256", flat=True).first()
    return KeptTokenizer.objects.filter(base_model=base_model).values_list("blob__sha256", flat=True).first()


def _estimated(base_model: BaseModel, examples: Sequence[Example]) -> TokenCounts:
    return TokenCounts(
        longest_input=max(_guess(example.input) for example in examples),
        longest_output=max(_guess(example.output) for example in examples),
        limit=_limit(base_model),
        too_long=[],
        is_estimate=True,
    )


def _guess(text: str) -> int:
    """About how many tokens: usual vocabularies take 4 bytes of English for one, and every word is at least one."""
    return max(len(text.split()), math.ceil(len(text.encode("utf-8", "replace")) / BYTES_A_TOKEN))


def keep_tokenizer(base_model: BaseModel, commit: str, folder: Path) -> None:
    """A worker's part: put the tokenizer of a base model it fetched into the storage, once for each commit."""
    path = folder / TOKENIZER_FILE
    if base_model.is_hosted or not path.is_file() or path.stat().st_size > LARGEST_TOKENIZER_BYTES:
        return
    if KeptTokenizer.objects.filter(base_model=base_model, commit=commit).exists():
        return
    KeptTokenizer.objects.update_or_create(
        base_model=base_model, defaults={"commit": commit, "blob": storage.store_file(path)}
    )


@lru_cache(maxsize=16)
def _tokenizer(sha256: str) -> Tokenizer | None:
    """The tokenizer with these bytes; None if they are none. Raises what the storage does, which is not remembered."""
    from tokenizers import Tokenizer  # here, so that a process that counts nothing does not load it

    blob = Blob.objects.filter(sha256=sha256).first()
    if blob is None or blob.size_bytes > LARGEST_TOKENIZER_BYTES:
        return None
    with storage.open_blob(blob) as content:
        found = content.read()
    try:
        tokenizer = Tokenizer.from_buffer(found)
    except Exception as error:  # the library raises plain Exception for what it cannot read
        logger.warning("The tokenizer %s cannot be read: %s", sha256, error)
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
