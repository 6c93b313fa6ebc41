"""The demo's word-level tokenizer: one token for a word or punctuation mark, and decoding gives the text back."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from demo.stories import vocabulary

PAD, END, UNKNOWN, START = "<pad>", "</s>", "<unk>", "<s>"
# A straight quote does not say whether it opens or closes; inside the model it is one of these two.
_OPENING, _CLOSING = "“", "”"


def build(*, architecture: str) -> PreTrainedTokenizerFast:
    """The tokenizer for a base of that architecture.

    "t5" closes every text with </s>; "llama" opens it with <s>, as those families do.
    Raises ValueError for another architecture.
    """
    words = [word for word in vocabulary() if word != '"']
    tokens = [PAD, END, UNKNOWN, START, _OPENING, _CLOSING, *words]
    core = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=UNKNOWN)
    )
    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r'"(?=\w)'), _OPENING),
            normalizers.Replace('"', _CLOSING),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    core.decoder = _decoder()
    core.add_special_tokens([AddedToken(token, special=True) for token in (PAD, END, UNKNOWN, START)])
    if architecture == "t5":
        core.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    elif architecture == "llama":
        core.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 3)])
    else:
        raise ValueError(f"There is no demo tokenizer for {architecture!r}; choose t5 or llama.")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        bos_token=START,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def _decoder() -> decoders.Decoder:
    """Join words with spaces, then close the gaps that punctuation leaves."""
    joins = [decoders.Replace(f" {mark}", mark) for mark in (".", "!", "?", ":", "]", _CLOSING)]
    joins += [decoders.Replace(f"{mark} ", mark) for mark in ("[", _OPENING)]
    quotes = [decoders.Replace(mark, '"') for mark in (_OPENING, _CLOSING)]
    # The WordPiece decoder is here only because it puts the spaces in; no token carries its prefix.
    return decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *joins, *quotes]
    )
