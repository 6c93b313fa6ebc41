"""float32 products by another library: the same numbers up to rounding, gradients untouched, and only where it pays."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from compose.engine import products
from compose.engine.stopwatch import times_faster

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch is without oneDNN"
)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """This machine is one that multiplies faster by oneDNN; filled with the shapes of what it is asked to do."""
    asked: list[tuple[int, ...]] = []

    def by_onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        asked.append((*x.shape, weight.shape[0]))
        return real(x, weight, bias)

    real = products._by_onednn
    monkeypatch.setattr(products, "is_onednn_faster", lambda: True)
    monkeypatch.setattr(products, "_by_onednn", by_onednn)
    return asked


def random(*sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes))).to(dtype)


@pytest.mark.parametrize("bias", [None, random(300)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_linear_layer(faster: list, bias: torch.Tensor | None, transposed: bool):
    x = random(3, 41, 257)
    weight = random(257, 300).T if transposed else random(300, 257)
    found = products.linear(x, weight, bias)
    assert faster == [(3, 41, 257, 300)]
    torch.testing.assert_close(found, functional.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_matrix_for_every_group(faster: list, groups: int):
    x, matrices = random(groups, 100, 160), random(groups, 160, 200)
    found = products.grouped(x, matrices)
    assert faster == [(100, 160, 200)] * groups or faster == [(1, 100, 160, 200)]
    torch.testing.assert_close(found, x @ matrices, rtol=1e-5, atol=1e-4)


def test_a_row_of_tokens_that_does_not_lie_together(faster: list):
    x, weight = random(160, 300).T, random(200, 160)
    torch.testing.assert_close(products.linear(x, weight), functional.linear(x, weight), rtol=1e-5, atol=1e-4)
    assert faster


def test_small_products_and_other_types_are_torchs_own(faster: list):
    small = (random(3, 20), random(30, 20))
    assert torch.equal(products.linear(*small), functional.linear(*small))
    short = (random(500, 160, dtype=torch.bfloat16), random(200, 160, dtype=torch.bfloat16))
    assert torch.equal(products.linear(*short), functional.linear(*short))
    assert faster == []


def test_gradients_are_followed(faster: list):
    x, weight = random(500, 160), random(200, 160).requires_grad_()
    products.linear(x, weight).sum().backward()
    assert weight.grad is not None
    assert faster == []
    with torch.no_grad():
        products.linear(x, weight)
    assert faster


def test_a_machine_where_it_is_not_faster_keeps_torchs_own(faster: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(products, "is_onednn_faster", lambda: False)
    x, weight = random(500, 160), random(200, 160)
    assert torch.equal(products.linear(x, weight), functional.linear(x, weight))
    assert faster == []


def test_a_stopwatch_tells_the_slower_work():
    x = random(200, 200)

    def thirty() -> None:
        for _ in range(30):
            x @ x

    assert times_faster(thirty, lambda: None, device=CPU) > 1 > times_faster(lambda: None, thirty, device=CPU)
