"""Bases and modules shared by the engine's tests; built once for a test session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from compose.engine.types import Module
from tests.compose.engine import tiny

torch.set_num_threads(1)


@dataclass(frozen=True)
class Collection:
    """A base and some equal-shaped modules for it."""

    family: str
    base: Path
    modules: tuple[Module, ...]


def _collection(family: str, root: Path) -> Collection:
    return Collection(family, *tiny.save_collection(root, family, 6))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return _collection("t5", tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return _collection("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return _collection("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session", params=["t5", "llama", "gpt2"])
def collection(request: pytest.FixtureRequest) -> Collection:
    return request.getfixturevalue(request.param)
