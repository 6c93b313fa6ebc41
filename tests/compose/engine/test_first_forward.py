"""What one small forward tells: which way a base reads, and how its layers see the rows of a batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from compose.engine.first_forward import read
from tests.compose.engine import tiny


class Router(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(-1)


class Own(nn.Linear):
    """As Falcon's in bfloat16, which rounds before it adds the bias, and is plain."""

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight.T).bfloat16().float() + self.bias


class Toy(nn.Module):
    """Each linear layer sees the batch in another way."""

    def __init__(self, *, width: int = 8, looks_ahead: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=1)
        self.device = torch.device("cpu")
        self.looks_ahead = looks_ahead
        self.embed = nn.Embedding(5, width)
        self.rows_first, self.flat, self.tokens_first, self.positions, self.unused = (
            nn.Linear(width, width) for _ in range(5)
        )
        self.router, self.own = Router(width, width), Own(width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        x = self.rows_first(self.embed(input_ids))
        x = self.flat(x.flatten(0, 1)).view(x.shape)
        x = self.tokens_first(x.transpose(0, 1)).transpose(0, 1)
        x = x + self.positions(torch.ones_like(x[0])) + self.own(x) * self.router(x)
        return SimpleNamespace(logits=x + x.mean(1, keepdim=True) if self.looks_ahead else x)


def test_layers_are_told_apart_by_how_they_see_the_rows():
    torch.manual_seed(0)
    found = read(Toy(), is_seq2seq=False)
    assert found.is_left_to_right
    assert found.tokens_first == {"tokens_first"}
    assert found.without_rows == {"positions"}
    assert found.more_than_linear == {"router"}


def test_a_layer_that_rounds_otherwise_is_plain_where_numbers_cancel_out_too():
    torch.manual_seed(0)
    model = Toy(width=64)
    nn.init.normal_(model.own.weight)
    nn.init.normal_(model.own.bias)
    assert read(model, is_seq2seq=False).more_than_linear == {"router"}


def test_what_looks_ahead_does_not_read_left_to_right():
    torch.manual_seed(0)
    assert not read(Toy(looks_ahead=True), is_seq2seq=False).is_left_to_right


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_usual_bases_have_their_rows_first_everywhere(family: str):
    model = tiny.new_model(family).eval()
    found = read(model, is_seq2seq=family == "t5")
    assert not found.tokens_first | found.without_rows | found.more_than_linear
    assert found.is_left_to_right or family == "t5"
    assert not any(layer._forward_hooks for layer in model.modules())
