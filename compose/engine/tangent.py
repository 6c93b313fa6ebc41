"""A local model of the few-shot loss, from one probe of every module beside a centre, and its lowest points.

The log-probabilities z of the answers' tokens are taken as linear in the mixing weights around the centre, z + d·J, with
J from differences of forward passes. The cross entropy of these is convex in the step d; it is minimised with the
penalties on the weights by proximal Newton steps. For a softmax this is the Gauss-Newton method (Schraudolph 2002), its damping that of
Levenberg and Marquardt. No gradient of the language model is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NEWTON_STEPS = 4
_PROXIMAL_STEPS = 150


class Tangent:
    """The loss around `centre`, as the probes say it bends."""

    def __init__(self, log_probs: np.ndarray, *, step: float) -> None:
        """`log_probs` (1 + n, positions, classes): of the centre, then with each weight raised by `step`."""
        exact = log_probs.astype(np.float64)
        self._z = exact[0]  # (positions, classes)
        self._slopes = (exact[1:] - exact[0]) / step  # (n, positions, classes)
        self._flat = self._slopes.reshape(len(self._slopes), -1)
        self._positions = self._z.shape[0]

    def steps(self, centre: np.ndarray, *, l1: float, l2: float, dampings: Sequence[float]) -> np.ndarray:
        """(dampings, n) steps d, each minimising loss(d) + l1·|centre + d|₁ + l2/2·|centre + d|² + damping/2·|d|²."""
        damping = np.asarray(dampings, dtype=np.float64)[:, None]
        found = np.zeros((len(damping), len(centre)))
        for _ in range(_NEWTON_STEPS):
            slope, curvature = self._slope_and_curvature(found)
            found = _proximal(centre, found, slope, curvature, l1=l1, l2=l2, damping=damping)
        return found

    def _slope_and_curvature(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (m, n) and Gauss-Newton matrix (m, n, n) of the modelled loss at each step."""
        slopes, curvatures = [], []
        for step in steps:
            z = self._z + (step @ self._flat).reshape(self._z.shape)
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            expected = (self._slopes * p).sum(2)  # (n, positions)
            slopes.append((expected - self._slopes[:, :, 0]).sum(1))
            curvatures.append((self._flat * p.reshape(-1)) @ self._flat.T - expected @ expected.T)
        return np.stack(slopes) / self._positions, np.stack(curvatures) / self._positions


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
    now = ahead = around
    momentum = 1.0
    for _ in range(_PROXIMAL_STEPS):
        gradient = (
            slope
            + ((ahead - around)[:, None, :] @ curvature)[:, 0, :]
            + l2 * (centre + ahead)
            + damping * ahead
        )
        moved = centre + ahead - gradient / steepest
        shrunk = np.sign(moved) * np.maximum(np.abs(moved) - l1 / steepest, 0.0) - centre
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = shrunk + (momentum - 1) / following * (shrunk - now)
        now, momentum = shrunk, following
    return now
