"""A text answered by a finished adapter, or refused in words."""

from __future__ import annotations

import pytest

from compose.engine import errors, tryout
from compose.engine.warm import WarmCache
from tests.compose.engine.conftest import Collection


def test_a_text_without_any_token_is_refused(llama: Collection):
    with pytest.raises(errors.EmptyExample, match="The text holds no token of the base model"):
        tryout.answer(llama.base, llama.modules[0], "  ", warm=WarmCache(), device="cpu")
