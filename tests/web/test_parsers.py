"""Bodies of JSON that no database could keep, and those that only look like them."""

from __future__ import annotations

import io
import json

import pytest
from rest_framework.exceptions import ParseError

from web.parsers import StrictJSONParser


@pytest.mark.parametrize("text", [r"\u0000", r"a\u0000b", r"\\\u0000", r"\\\\\u0000"])
def test_a_nul_is_refused_wherever_it_stands(text: str):
    for body in (f'{{"x": ["{text}"]}}', f'{{"{text}": 1}}'):
        with pytest.raises(ParseError, match="NUL"):
            StrictJSONParser().parse(io.BytesIO(body.encode()))


@pytest.mark.parametrize("text", [r"\u0000", r"a \\u0000 b", "\\", r"\\"])
def test_a_text_that_spells_a_nul_out_is_taken(text: str):
    body = json.dumps({"x": [text]}).encode()
    assert StrictJSONParser().parse(io.BytesIO(body)) == {"x": [text]}
