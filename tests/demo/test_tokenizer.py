import random

import pytest

from demo import tokenizer
from demo.collection import BASES
from demo.stories import tell


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.id)
def test_decoding_gives_every_text_back(base):
    words = tokenizer.build(architecture=base.architecture)
    for pair in (*base.trained, *base.held_out):
        row = pair.row(tell(random.Random(pair.key)), instructed=True)
        for text in (row.input, row.output):
            numbers = words(text)["input_ids"]
            assert words.unk_token_id not in numbers
            assert words.decode(numbers, skip_special_tokens=True) == text


def test_a_t5_text_ends_with_the_end_token_and_a_llama_text_starts_with_the_start_token():
    assert tokenizer.build(architecture="t5")("red")["input_ids"][-1] == 1
    assert tokenizer.build(architecture="llama")("red")["input_ids"][0] == 3


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="choose t5 or llama"):
        tokenizer.build(architecture="bert")
