from __future__ import annotations

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from registry import models
from registry.models import Adapter, Token
from tests.factories import make_adapter, make_base_model, make_task, make_token, make_user

pytestmark = pytest.mark.django_db

OURS = [getattr(models, name) for name in models.__all__]
# Shown inside of another's page.
INLINE = {
    models.Invitation,
    models.Membership,
    models.Ref,
    models.RevisionFile,
    models.BaseModelAlias,
    models.BaseModelFile,
}


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(make_user(is_staff=True, is_superuser=True))
    return client


def test_every_model_is_in_the_admin():
    assert {model for model in OURS if model not in admin.site._registry} == INLINE


@pytest.mark.parametrize(
    "model", [model for model in OURS if model not in INLINE], ids=lambda model: model.__name__
)
def test_every_list_and_every_row_opens(staff, model):
    user = make_user()
    make_token(user)
    make_task("who", rows=1)
    make_adapter("m", owner=user, base_model=make_base_model())
    name = model._meta.model_name
    assert staff.get(reverse(f"admin:registry_{name}_changelist"), {"q": "m"}).status_code == 200
    row = model.objects.first()
    if row is not None:
        assert staff.get(reverse(f"admin:registry_{name}_change", args=[row.pk])).status_code == 200


def test_strangers_are_sent_to_sign_in():
    client = Client()
    client.force_login(make_user())
    assert client.get(reverse("admin:registry_adapter_changelist")).status_code == 302


def test_tokens_are_revoked_and_adapters_quarantined_from_their_lists(staff):
    make_token(make_user())
    adapter = make_adapter("m")
    for model, action, row in (("token", "revoke", Token.objects.get()), ("adapter", "quarantine", adapter)):
        address = reverse(f"admin:registry_{model}_changelist")
        answer = staff.post(address, {"action": action, "_selected_action": [row.pk]})
        assert answer.status_code == 302
    assert Token.objects.get().revoked_at
    assert not Adapter.objects.visible_to(None).exists()
