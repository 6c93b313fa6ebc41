"""What a search asks for, measured: losses always, responses or derivatives where it works with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compose.engine.bank import Bank
from compose.engine.methods import Search, Vector
from compose.engine.mixing import Mix
from compose.engine.scoring import Scorer
from compose.engine.types import Trial


def measure(
    scorer: Scorer,
    bank: Bank,
    mix: str,
    needs: str,
    vectors: Sequence[Vector],
    examples: Sequence[int] | None = None,
) -> tuple[list[float], Any]:
    """Losses of the vectors over all examples or some, and what `Search.tell` wants besides.

    For "responses" and "gradient" the mix is the exact one.
    """
    mixes = [Mix(mix, vector) for vector in vectors]
    if not mixes:
        return [], None
    if needs == "responses":
        responses = scorer.responses(mixes)
        if examples is not None:
            responses = responses.of(examples)
        return responses.losses(), responses
    if needs == "gradient":
        chosen = range(scorer.row_count) if examples is None else examples
        found = [scorer.gradient(bank, vector, chosen) for vector in vectors]
        return [loss for loss, _ in found], [slope for _, slope in found]
    if examples is None:
        return scorer.losses(mixes), None
    return scorer.row_losses(mixes).means(examples), None


def run_to_the_end(scorer: Scorer, bank: Bank, mix: str, search: Search) -> list[Trial]:
    """All trials of a search that nobody watches, stops or resumes."""
    trials: list[Trial] = []
    while vectors := search.ask():
        losses, more = measure(scorer, bank, mix, search.needs, vectors)
        told = [
            Trial(number, vector, loss, search.objective(vector, loss))
            for number, (vector, loss) in enumerate(zip(vectors, losses, strict=True), start=len(trials) + 1)
        ]
        trials += told
        search.tell(told, more)
    return trials
