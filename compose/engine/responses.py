"""What mixes say at every token of an answer: enough to see how the answers bend when a weight is moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# With a vocabulary up to this size every token is a class of its own; with a larger one the likeliest are.
_WHOLE_VOCABULARY = 256
_LIKELIEST = 64


@dataclass(frozen=True)
class Responses:
    """Log-probabilities of some mixes, where an answer's tokens are due.

    log_probs: (mixes, positions, classes), natural logs. Class 0 is the expected token; the others are the tokens
        that the first mix finds likeliest, and, where the vocabulary is larger than that, the rest together.
    examples: (positions,) index of the example that a position belongs to.
    """

    log_probs: np.ndarray
    examples: np.ndarray

    def losses(self) -> list[float]:
        """Mean token loss of every mix, in nats."""
        return (-self.log_probs[:, :, 0].astype(np.float64).mean(1)).tolist()

    def of(self, examples: Sequence[int]) -> Responses:
        """Only the positions of these examples."""
        chosen = np.isin(self.examples, list(examples))
        return Responses(self.log_probs[:, chosen], self.examples[chosen])


def choose_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """(positions, classes) token ids, the expected one first, from logits (positions, vocabulary)."""
    others = logits.float().scatter(1, labels.unsqueeze(1), -torch.inf)
    vocabulary = logits.shape[1]
    count = vocabulary - 1 if vocabulary <= _WHOLE_VOCABULARY else _LIKELIEST
    return torch.cat([labels.unsqueeze(1), others.topk(count, dim=1).indices], dim=1)


def log_probs_of(logits: Tensor, classes: Tensor) -> Tensor:
    """(mixes, positions, classes [+ 1]) from logits (mixes, positions, vocabulary); the last is all other tokens."""
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    classes = classes.expand(len(logits), -1, -1)
    picked = logits.gather(2, classes) - total
    if classes.shape[2] == logits.shape[2]:
        return picked
    # Not 1 minus the sum of the others: that would be all rounding where they leave little.
    rest = logits.scatter(2, classes, -torch.inf).logsumexp(-1, keepdim=True) - total
    return torch.cat([picked, rest], dim=2)
