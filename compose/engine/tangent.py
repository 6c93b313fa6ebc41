"""A local model of the few-shot loss, from one probe of every module beside a centre, and its lowest points.

The log-probabilities z of the answers' tokens are taken as linear in the mixing weights around the centre, z + d·J, with
J from differences of forward passes. The cross entropy of these is convex in the step d; it is minimised with the
penalties on the weights by proximal Newton steps. For a softmax this is the Gauss-Newton method (Schraudolph 2002), its damping that of
Levenberg and Marquardt. No gradient of the language model is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

_NEWTON_STEPS = 4
_PROXIMAL_STEPS = 150


def _momenta(steps: int) -> Iterator[float]:
    """How far each step of FISTA goes beyond where it came to."""
    now = 1.0
    for _ in range(steps):
        following = (1 + (1 + 4 * now * now) ** 0.5) / 2
        yield (now - 1) / following
        now = following


_MOMENTA = tuple(_momenta(_PROXIMAL_STEPS))


class Tangent:
    """The loss around `centre`, as the probes say it bends."""

    def __init__(self, log_probs: np.ndarray, *, step: float) -> None:
        """`log_probs` (1 + n, positions, classes): of the centre, then with each weight raised by `step`."""
        # On the CPU and in double precision; torch and not numpy, whose threads wait for each other at this size.
        exact = torch.from_numpy(log_probs).double()
        self._z = exact[0]  # (positions, classes)
        self._slopes = (exact[1:] - exact[0]) / step  # (n, positions, classes)
        self._flat = self._slopes.flatten(1)  # (n, positions * classes)
        self._by_position = self._slopes.permute(1, 0, 2).contiguous()  # (positions, n, classes)

    def steps(self, centre: np.ndarray, *, l1: float, l2: float, dampings: Sequence[float]) -> np.ndarray:
        """(dampings, n) steps d, each minimising loss(d) + l1·|centre + d|₁ + l2/2·|centre + d|² + damping/2·|d|²."""
        damping = np.asarray(dampings, dtype=np.float64)[:, None]
        found = np.zeros((len(damping), len(centre)))
        for number in range(_NEWTON_STEPS):
            # All dampings begin at the same place.
            places = found if number else found[:1]
            slope, curvature = self._slope_and_curvature(torch.from_numpy(places))
            found = _proximal(centre, found, slope.numpy(), curvature.numpy(), l1=l1, l2=l2, damping=damping)
        return found

    def _slope_and_curvature(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (m, n) and Gauss-Newton matrix (m, n, n) of the modelled loss at each step (m, n)."""
        p = (self._z + (steps @ self._flat).view(-1, *self._z.shape)).softmax(2)  # (m, positions, classes)
        expected = (self._by_position @ p.permute(1, 2, 0)).permute(2, 1, 0)  # (m, n, positions)
        slope = (expected - self._slopes[:, :, 0]).sum(2)
        second = torch.stack([(self._flat * each.flatten()) @ self._flat.T for each in p])
        positions = len(self._z)
        return slope / positions, (second - expected @ expected.transpose(1, 2)) / positions


def _proximal(
    centre: np.ndarray,
    around: np.ndarray,
    slope: np.ndarray,
    curvature: np.ndarray,
    *,
    l1: float,
    l2: float,
    damping: np.ndarray,
) -> np.ndarray:
    """Minimise the quadratic around `around` with the penalties and the damping, by accelerated proximal gradient (FISTA).

    Source: Beck and Teboulle 2009, SIAM J. Imaging Sciences 2(1).
    """
    steepest = np.linalg.eigvalsh(curvature)[:, -1:].clip(min=0) + l2 + damping + 1e-9  # (m, 1)
    # On the weights themselves, u = centre + d, a gradient step is u @ onward + offset; 150 of them are most of a search's
    # arithmetic outside the language model, so they take as few operations as there can be, and no new arrays.
    n = len(centre)
    onward = (
        np.eye(n) * (1 - (l2 + damping) / steepest)[:, :, None] - curvature / steepest[:, :, None]
    )  # (m, n, n)
    pull = ((centre + around)[:, None, :] @ curvature)[:, 0, :] - slope + damping * centre
    offset = (pull / steepest)[:, None, :]
    threshold = (l1 / steepest)[:, None, :]
    now = (centre + around)[:, None, :]  # (m, 1, n)
    ahead, following, inside = now.copy(), np.empty_like(now), np.empty_like(now)
    for momentum in _MOMENTA:
        np.matmul(ahead, onward, out=following)
        following += offset
        np.minimum(following, threshold, out=inside)
        np.maximum(inside, -threshold, out=inside)
        following -= inside  # what is within the threshold becomes 0
        np.subtract(following, now, out=ahead)
        ahead *= momentum
        ahead += following
        now, following = following, now
    return now[:, 0, :] - centre
