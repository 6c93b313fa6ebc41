from __future__ import annotations

import re
from pathlib import Path

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.db import DatabaseError, connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from compose.models import Composition
from config.administration import SUBJECTS
from registry import audit, base_models, models, moderation
from registry.admin import Audited, ReadOnly
from registry.models import Adapter, AuditEntry, Report, Task, Token
from registry.models.moderation import WrittenForGood
from tests.compose.factories import make_composition
from tests.factories import (
    make_adapter,
    make_base_model,
    make_task,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)

pytestmark = pytest.mark.django_db

_ALL = [getattr(models, name) for name in models.__all__]
OURS = [
    model
    for model in _ALL
    if isinstance(model, type) and issubclass(model, Model) and not model._meta.abstract
]
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
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"revoke", "quarantine"}


def test_every_change_in_the_administration_is_in_the_book(staff):
    make_task("who")
    task = Task.objects.get()
    fields = {"slug": "who", "title": "Who is it", "metric": "exact_match", "tags": "[]", "description": ""}
    answer = staff.post(reverse("admin:registry_task_change", args=[task.pk]), fields)
    assert answer.status_code == 302
    entry = AuditEntry.objects.get(action="admin: change")
    assert entry.subject_name == "Who is it"
    assert "title" in entry.detail.lower()


def test_nothing_in_the_administration_can_be_changed_outside_of_the_book():
    unbooked = [
        model._meta.label
        for model, found in admin.site._registry.items()
        if not isinstance(found, (ReadOnly, Audited))
    ]
    assert unbooked == []


def test_what_other_libraries_keep_is_booked_too(staff):
    user = make_user("ada", email="ada@example.org")
    address = EmailAddress.objects.create(user=user, email=user.email)
    factor = Authenticator.objects.create(user=user, type="totp", data={"secret": "its-secret"})
    assert b"its-secret" not in staff.get(reverse("admin:mfa_authenticator_change", args=[factor.pk])).content
    staff.post(reverse("admin:mfa_authenticator_delete", args=[factor.pk]), {"post": "yes"})
    staff.post(
        reverse("admin:account_emailaddress_changelist"),
        {"action": "make_verified", "_selected_action": [address.pk]},
    )
    staff.post(reverse("admin:auth_group_add"), {"name": "Moderators"})
    address.refresh_from_db()
    assert address.verified
    acts = AuditEntry.objects.order_by("id").values_list("action", "subject_kind")
    assert list(acts) == [
        ("admin: delete", "authenticator"), ("verify address", "email address"), ("admin: add", "group"),
    ]  # fmt: skip


def test_what_is_private_stays_its_owners_to_show(staff):
    adapter = make_adapter("m", visibility="private")
    form = {"tags": "[]", "description": "New", "visibility": "public", "parameters": 1}
    for prefix in ("revisions", "refs"):
        form |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    assert staff.post(reverse("admin:registry_adapter_change", args=[adapter.pk]), form).status_code == 302
    adapter.refresh_from_db()
    assert (adapter.description, adapter.visibility, adapter.parameters) == ("New", "private", None)


def test_nobody_reads_the_key_of_somebodys_session(staff):
    user = make_user("ada")
    session = UserSession.objects.create(user=user, session_key="its-key", ip="10.0.0.1", user_agent="x")
    page = staff.get(reverse("admin:usersessions_usersession_change", args=[session.pk]))
    assert page.status_code == 200
    assert b"its-key" not in page.content
    for gone in ("socialaccount/socialapp", "socialaccount/socialtoken"):
        assert staff.get(f"/admin/{gone}/").status_code == 404


def test_a_composition_is_looked_at_without_what_is_its_owners_alone(staff):
    composition = make_composition(owner=make_user("ada"))
    Composition.objects.update(error="Row 1, “my secret”, is too long.", share_key="the-key", status="failed")
    page = staff.get(reverse("admin:compose_composition_change", args=[composition.pk]))
    assert page.status_code == 200
    for private in (b"my secret", b"the-key", b"question 1"):
        assert private not in page.content
    assert staff.post(reverse("admin:compose_composition_delete", args=[composition.pk])).status_code == 403


def test_the_book_is_neither_changed_nor_shortened(staff):
    entry = audit.record(actor=None, action="test", subject=make_user())
    with pytest.raises(WrittenForGood):
        entry.save()
    with pytest.raises(WrittenForGood):
        entry.delete()
    with pytest.raises(WrittenForGood):
        AuditEntry.objects.update(action="other")
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE registry_auditentry SET action = 'other'")
    assert AuditEntry.objects.get().action == "test"
    assert staff.post(reverse("admin:registry_auditentry_delete", args=[entry.pk])).status_code == 403


def test_who_is_blocked_is_out_at_once(staff):
    user = make_user("eve")
    secret, browser = make_token(user), Client()
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("admin:registry_user_changelist")
    staff.post(address, {"action": "block", "_selected_action": [user.pk]})
    assert browser.get("/settings").status_code == 302
    assert Client().get("/api/v1/whoami/", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert not Client().login(username="eve", password="correct horse battery")
    staff.post(address, {"action": "unblock", "_selected_action": [user.pk]})
    assert browser.get("/settings").status_code == 200
    assert staff.post(reverse("admin:registry_user_delete", args=[user.pk])).status_code == 403
    page = staff.get(reverse("admin:registry_user_change", args=[user.pk])).content.decode()
    assert 'name="is_staff"' in page
    assert 'name="is_active"' not in page
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"block", "unblock"}


def test_a_person_added_in_the_administration_has_a_namespace(staff):
    fields = {
        "username": "newcomer",
        "usable_password": "true",
        "password1": "correct horse battery",
        "password2": "correct horse battery",
    }
    staff.post(reverse("admin:registry_user_add"), fields)
    assert models.Namespace.objects.filter(name="newcomer").exists()


@pytest.mark.parametrize("website", [f"https://{'ä' * 63}.example", "https://a@b.example", "ftp://a.example"])
def test_a_website_is_checked_as_in_the_settings(staff, website):
    own = namespace_of(make_user("ada"))
    page = staff.post(f"/admin/registry/namespace/{own.pk}/change/", {"website": website})
    assert page.context["adminform"].errors["website"]
    own.refresh_from_db()
    assert own.website == ""


def test_the_first_page_says_what_somebody_may_want_to_look_at(staff):
    moderator = make_user(is_staff=True)
    shown, hidden = make_adapter("shown"), make_adapter("hidden")
    moderation.quarantine(hidden, moderator=moderator, reason="It is spam.")
    moderation.report(
        shown, reporter=make_user(), address="192.0.2.1", reason=Report.Reason.SPAM, text="Look."
    )
    page = staff.get(reverse("admin:index")).content.decode()
    for said in (
        "<b>1 adapter</b> with reports nobody",
        "<b>1 adapter</b> in quarantine",
        "<b>0 compositions</b> that failed",
    ):
        assert said in page
    for state, names in (("shown", [b"shown"]), ("quarantined", [b"hidden"]), ("deleted", [])):
        rows = (
            staff.get(reverse("admin:registry_adapter_changelist"), {"state": state})
            .context["cl"]
            .result_list
        )
        assert [row.name.encode() for row in rows] == names


def test_every_table_has_its_subject_on_the_first_page(staff):
    named = [name for names in SUBJECTS.values() for name in names]
    assert sorted(named) == sorted(model.__name__ for model in admin.site._registry)
    page = staff.get(reverse("admin:index"))
    assert [each["name"] for each in page.context["app_list"]] == list(SUBJECTS)
    assert staff.get("/admin/registry/").status_code == 200


def test_the_administration_wears_the_colours_of_the_site():
    theirs, ours = (
        Path("static/css", name).read_text(encoding="utf-8") for name in ("administration.css", "base.css")
    )
    colours = set(re.findall(r"light-dark\([^)]*\)", theirs))
    assert colours
    assert not [colour for colour in colours if colour not in ours]


def test_modules_are_compared_with_a_base_model_once_it_has_another_name(staff, tmp_path):
    base = make_base_model()
    waiting = publish_fake(tmp_path, config={"base_model_name_or_path": "mirror/tiny"})
    assert waiting.base_model is None
    rows = {"license": "mit", "aliases-0-text": "mirror/tiny"}
    for prefix, count in (("aliases", 1), ("files", 0)):
        rows |= {f"{prefix}-TOTAL_FORMS": str(count), f"{prefix}-INITIAL_FORMS": "0"}
    answer = staff.post(reverse("admin:registry_basemodel_change", args=[base.pk]), rows)
    assert answer.status_code == 302
    assert base_models.recheck_wanted() == 1
    waiting.refresh_from_db()
    assert waiting.base_model == base
    again = staff.post(
        reverse("admin:registry_basemodel_change", args=[base.pk]),
        {
            "license": "apache-2.0",
            **{f"{prefix}-TOTAL_FORMS": 0 for prefix in ("aliases", "files")},
            **{f"{prefix}-INITIAL_FORMS": 0 for prefix in ("aliases", "files")},
        },
    )
    assert again.status_code == 302
    assert base_models.recheck_wanted() == 0
