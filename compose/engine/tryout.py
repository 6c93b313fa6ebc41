"""One text answered by a finished adapter, with the bare base model's answer beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from compose.engine import evaluation, loading
from compose.engine.errors import EmptyExample, ExamplesTooLong
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import prompt_ids
from compose.engine.types import Module
from compose.engine.warm import WarmCache

MAX_NEW_TOKENS = 128


def answer(
    base_folder: Path, adapter: Module, text: str, *, warm: WarmCache, device: str = "auto"
) -> dict[str, str]:
    """Greedy answers of up to MAX_NEW_TOKENS: "composed" with the adapter at weight 1, "zero_shot" without it.

    Raises EngineError, among others for a text that the base model cannot take.
    """
    where = loading.resolve_device(device)
    base = warm.base(base_folder, device=where, dtype=torch.float32)
    loaded = warm.module(adapter)
    loading.check_fit(loaded, base)
    prompt = prompt_ids(base, text)
    if not prompt:
        raise EmptyExample("The text holds no token of the base model; write something else.")
    size = len(prompt) + (MAX_NEW_TOKENS if base.kind == "causal" else 0)
    if size > base.context_tokens:
        raise ExamplesTooLong(
            f"The text with room for an answer takes {size} tokens; the base model takes {base.context_tokens}. "
            "Shorten it."
        )
    mixer = Mixer(base, warm.bank((adapter,), (loaded,), device=where, dtype=torch.float32))
    asked = [
        question
        for name, weight in (("composed", 1.0), ("zero_shot", 0.0))
        for question in evaluation.questions(base, name, Mix(EXACT, (weight,)), [text])
    ]
    written = evaluation.answer(base, mixer, asked, max_new_tokens=MAX_NEW_TOKENS)
    return {question.method: line.strip() for question, line in zip(asked, written, strict=True)}
