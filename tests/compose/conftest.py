"""Nothing in these tests reaches a broker, unless it says so."""

import pytest

from compose import engine, worker
from registry.models import BaseModel, Namespace, User
from tests import fakes
from tests.compose.factories import make_modules
from tests.factories import make_base_model, make_organisation, make_user


@pytest.fixture(autouse=True)
def no_broker(rung):
    """Messages are kept, not sent."""


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's engine computes nothing; the real one would be imported with torch."""
    monkeypatch.setattr(engine, "run", fakes, raising=False)
    monkeypatch.setattr(engine, "warm", fakes, raising=False)
    monkeypatch.setattr(worker, "_warm_cache", fakes.WarmCache())
    worker._draining.clear()


@pytest.fixture
def lab(ada: User) -> Namespace:
    """An organisation of ada's, in which rita reads."""
    return make_organisation("lab", members={ada: "admin", make_user("rita"): "read"})


@pytest.fixture
def base_model() -> BaseModel:
    """One with three modules of maker's."""
    found = make_base_model()
    make_modules(found, owner=make_user("maker"))
    return found
