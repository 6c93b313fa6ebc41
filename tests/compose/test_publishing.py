from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Concat
from rest_framework.test import APIClient

from compose import jobs, naming, publishing, recipes, worker
from compose.errors import NoSuchComposition, ParentInQuarantine, PrivateParents, WrongState
from compose.models import Candidate, Composition
from registry import moderation, moving, preparing, storage
from registry.cards import split_card
from registry.models import Adapter
from registry.names import InvalidName
from registry.publishing import update_adapter
from tests.beside import Beside, after
from tests.compose.factories import finish, make_composition, make_modules, owner_of
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    namespace_of,
)
from tests.fake_adapters import make_adapter as make_folder
from web.errors import Conflict, Forbidden

pytestmark = pytest.mark.django_db


def finished(tmp_path: Path, **options) -> Composition:
    """A finished composition whose weights are a valid adapter for the base."""
    composition = finish(make_composition(**options))
    folder = make_folder(tmp_path / f"made-{composition.pk}")
    composition.weights_blob = storage.store_file(folder / "adapter_model.safetensors")
    composition.config_blob = storage.store_file(folder / "adapter_config.json")
    composition.save()
    return composition


def publish(composition: Composition, **options) -> Adapter:
    options = {"namespace": namespace_of(owner_of(composition)), "name": "mixed", **options}
    return publishing.publish_composition(composition, actor=owner_of(composition), **options)


def text_of(adapter: Adapter, path: str) -> str:
    assert adapter.head
    file = adapter.head.files.get(path=path)
    return storage.open_blob(file.blob).read().decode()


def test_the_composed_adapter_has_its_files_its_lineage_and_its_score(tmp_path):
    task = make_task("colours", rows=5, test_rows=20)
    composition = finished(tmp_path, task=task, examples=[])
    adapter = publish(composition, visibility="public", description="Says the colour.")
    adapter.refresh_from_db()
    composition.refresh_from_db()
    assert composition.adapter == adapter
    assert (adapter.kind, adapter.visibility, adapter.task) == ("composed", "public", task)
    assert (adapter.description, adapter.best_score) == ("Says the colour.", 0.6)
    assert adapter.base_model == composition.base_model
    assert adapter.is_composable
    assert adapter.head
    assert sorted(adapter.head.files.values_list("path", flat=True)) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "recipe.json",
    ]
    assert adapter.head.files.get(path="adapter_model.safetensors").blob == composition.weights_blob
    assert recipes.read(text_of(adapter, "recipe.json")) == recipes.recipe(composition)


def test_the_card_says_what_it_is_how_good_and_made_of_what(tmp_path):
    composition = finished(tmp_path)
    full_name = f"{composition.owner.username}/mixed"
    front, text = split_card(text_of(publish(composition), "README.md"))
    assert front["license"] == "mit"
    assert front["base_model"] == "demo/tiny-t5"
    assert "| LoraHub | 0.600 | 0.400 to 0.800 | 20 |" in text
    assert "The composed adapter is better than the base model." in text
    assert "Measured on rows that the search did not see." in text
    parents = [line for line in text.splitlines() if "/part-" in line]
    assert [line.split("|")[3].strip() for line in parents] == ["+2.1000", "+1.1000", "+0.1000"]
    assert "All parents have the licence mit." in text
    assert f'PeftModel.from_pretrained(base, "{full_name}")' in text
    assert "AutoModelForSeq2SeqLM" in text
    assert "huang2023lorahub" in text


def test_nothing_of_the_examples_is_published(tmp_path):
    composition = finished(tmp_path)
    adapter = publish(composition, visibility="public")
    for path in ("README.md", "recipe.json"):
        text = text_of(adapter, path)
        assert "question 1" not in text
        assert "answer 1" not in text
    assert "question" not in composition.title


def test_a_title_with_markup_stays_text(tmp_path):
    task = make_task("x", rows=5, title="<script>alert(1)</script> | *bold* `x`")
    adapter = publish(finished(tmp_path, task=task))
    text = text_of(adapter, "README.md")
    assert "<script>" not in text
    assert r"\<script\>alert(1)\</script\> \| \*bold\* \`x\`" in text


def test_it_is_private_unless_said_otherwise(tmp_path):
    adapter = publish(finished(tmp_path))
    assert adapter.is_private
    assert not Adapter.objects.visible_to(make_user()).filter(pk=adapter.pk).exists()


def test_an_unscored_one_says_so_and_has_no_score(tmp_path):
    composition = finished(tmp_path)
    composition.scores.update(split="leave_one_out")
    adapter = publish(composition)
    assert adapter.best_score is None
    assert "A leave-one-out estimate" in text_of(adapter, "README.md")


def test_it_is_published_once(tmp_path):
    composition = finished(tmp_path)
    publish(composition)
    with pytest.raises(WrongState, match="already published, as"):
        publish(composition, name="again")
    assert Adapter.objects.filter(kind="composed").count() == 1


@pytest.mark.parametrize("status", ["queued", "running", "failed", "cancelled"])
def test_only_a_success_is_published(status):
    composition = make_composition()
    composition.status = status
    with pytest.raises(WrongState, match="only one that succeeded"):
        publishing._require_publishable(composition)


def test_a_name_that_is_taken_stays_what_it_is(tmp_path):
    owner = make_user()
    base_model = make_base_model()
    [module] = make_modules(base_model, 1, owner=owner)
    composition = finished(tmp_path, owner=owner, base_model=base_model)
    before = module.head
    with pytest.raises(Conflict, match="There is already a LoRA module"):
        publish(composition, name="PART-0")
    module.refresh_from_db()
    assert module.head == before
    composition.refresh_from_db()
    assert composition.adapter is None


def test_what_takes_the_name_at_that_moment_is_not_overwritten(tmp_path, monkeypatch):
    owner = make_user()
    composition = finished(tmp_path, owner=owner)
    look = publishing._require_new_name

    def taken_right_after(namespace, name: str) -> None:
        look(namespace, name)
        make_adapter(name, owner=owner)

    monkeypatch.setattr(publishing, "_require_new_name", taken_right_after)
    with pytest.raises(Conflict, match="Somebody else published"):
        publish(composition)
    composition.refresh_from_db()
    assert composition.adapter is None


@pytest.mark.django_db(transaction=True)
def test_nothing_is_held_while_the_files_are_read(tmp_path, monkeypatch):
    composition = finished(tmp_path)
    held: list[bool] = []
    look = lambda: held.append(connection.in_atomic_block)  # noqa: E731
    after(preparing, "require_size", look, monkeypatch)
    after(publishing.storage, "local_path", look, monkeypatch)
    publish(composition)
    assert held == [False, False]


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_of_two_who_publish_at_once_the_second_waits_and_finds_the_adapter(tmp_path, monkeypatch):
    composition = finished(tmp_path)
    beside = Beside()
    again = lambda: publish(composition, name="again")  # noqa: E731
    after(publishing, "_keep_task_score", lambda: beside.start(again), monkeypatch)
    publish(composition)
    refusal = beside.error()
    assert isinstance(refusal, WrongState)
    assert "already published, as" in refusal.message
    assert Adapter.objects.filter(kind="composed").count() == 1


@pytest.mark.parametrize("what", ["license", "name"])
def test_what_it_is_made_of_is_changed_while_the_files_are_read(what, tmp_path, monkeypatch):
    composition = finished(tmp_path)
    change = lambda: Adapter.objects.update(license="gpl-3.0")  # noqa: E731
    if what == "name":
        change = lambda: Adapter.objects.update(name=Concat("name", Value("-renamed")))  # noqa: E731
    after(preparing, "require_size", change, monkeypatch)
    with pytest.raises(Conflict, match="were changed at this moment"):
        publish(composition)
    assert not Adapter.objects.filter(kind="composed").exists()


def test_strangers_and_foreign_namespaces_are_refused(tmp_path):
    composition = finished(tmp_path)
    stranger = make_user()
    with pytest.raises(NoSuchComposition):
        publishing.publish_composition(
            composition, actor=stranger, namespace=namespace_of(stranger), name="mine"
        )
    with pytest.raises(Forbidden):
        publish(composition, namespace=make_organisation())
    with pytest.raises(InvalidName):
        publish(composition, name="../up")
    assert not Adapter.objects.filter(kind="composed").exists()


def test_private_candidates_are_not_named_in_public(tmp_path):
    owner = make_user()
    base_model = make_base_model()
    make_modules(base_model, 3, owner=owner)
    composition = finished(tmp_path, owner=owner, base_model=base_model)
    Adapter.objects.filter(name="part-1").update(visibility="private")
    Candidate.objects.filter(revision__adapter__name="part-1").update(mixing_weight=0.0)
    with pytest.raises(PrivateParents, match=r"of its candidates these are private: .*/part-1\."):
        publish(composition, visibility="public")
    assert publish(composition, visibility="private").is_private


def test_an_organisation_is_not_told_the_private_modules_of_its_member(tmp_path):
    owner = make_user()
    base_model = make_base_model()
    modules = make_modules(base_model, 3, owner=owner)
    composition = finished(tmp_path, owner=owner, base_model=base_model)
    organisation = make_organisation(members={owner: "write", make_user(): "read"})
    own, others = modules[0], modules[1]
    Adapter.objects.filter(pk=own.pk).update(visibility="private", namespace=organisation)
    Adapter.objects.filter(pk=others.pk).update(visibility="private")
    with pytest.raises(PrivateParents, match=rf"to the members of {organisation.name}.*: [^ ]*/part-1\."):
        publish(composition, namespace=organisation, visibility="private")
    adapter = publish(composition, visibility="private")
    with pytest.raises(PrivateParents, match="part-1"):
        moving.move(adapter, actor=owner, namespace=organisation, name="mixed")
    adapter.refresh_from_db()
    assert adapter.namespace == namespace_of(owner)
    moving.move(adapter, actor=owner, namespace=namespace_of(owner), name="renamed")
    Adapter.objects.filter(pk=others.pk).update(visibility="public")
    assert moving.move(adapter, actor=owner, namespace=organisation, name="mixed").namespace == organisation


def test_a_refusal_names_no_module_that_is_hidden_from_who_asks(tmp_path):
    composition = finished(tmp_path)
    owner = owner_of(composition)
    others = Adapter.objects.filter(name="part-1")
    others.update(visibility="private", name="secret-plan")
    with pytest.raises(PrivateParents) as refused:
        publish(composition, visibility="public")
    adapter = publish(composition)
    with pytest.raises(PrivateParents) as refused_later:
        update_adapter(adapter, actor=owner, visibility="public")
    organisation = make_organisation(members={owner: "write"})
    with pytest.raises(PrivateParents) as refused_there:
        moving.move(adapter, actor=owner, namespace=organisation, name="mixed")
    for refusal in (refused, refused_later, refused_there):
        assert refusal.value.message.count(naming.HIDDEN) == 1
        assert "secret-plan" not in refusal.value.message


def test_a_public_adapter_moves_although_a_parent_became_private(tmp_path):
    composition = finished(tmp_path)
    adapter = publish(composition, visibility="public")
    parent = composition.candidates.get(position=1).revision.adapter
    Adapter.objects.filter(pk=parent.pk).update(visibility="private")
    organisation = make_organisation(members={owner_of(composition): "write"})
    moved = moving.move(adapter, actor=owner_of(composition), namespace=organisation, name="mixed")
    assert not moved.is_private


def test_publishing_by_the_api(tmp_path):
    composition = finished(tmp_path)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(owner_of(composition))}")
    address = f"/api/v1/compositions/{composition.pk}/publish/"
    assert client.post(address, {}).json()["fields"] == {"name": ["This field is required."]}
    answer = client.post(address, {"name": "mixed", "visibility": "public"})
    assert answer.status_code == 201, answer.data
    assert answer.json()["adapter"] == f"{composition.owner.username}/mixed"
    again = client.post(address, {"name": "mixed2"})
    assert (again.status_code, again.json()["code"]) == (409, "wrong_state")
    stranger = APIClient().get(f"/api/v1/compositions/{composition.pk}/")
    assert stranger.status_code == 200
    assert "question" not in stranger.content.decode()


@pytest.mark.parametrize("door", ["page", "api", "hub", "upload"])
def test_one_with_private_parents_does_not_become_public_afterwards(tmp_path, door):
    composition = finished(tmp_path)
    owner = composition.owner
    parent = composition.candidates.get(position=2).revision.adapter
    Adapter.objects.filter(pk=parent.pk).update(visibility="private")
    adapter = publish(composition)
    assert make_public(adapter, owner, door, tmp_path) == (400 if door == "page" else 409)
    adapter.refresh_from_db()
    assert adapter.is_private
    Adapter.objects.filter(pk=parent.pk).update(visibility="public")
    assert make_public(adapter, owner, door, tmp_path) in {200, 201, 302}
    adapter.refresh_from_db()
    assert not adapter.is_private


def test_one_with_private_parents_has_no_copy_that_others_see(tmp_path):
    composition = finished(tmp_path)
    owner = owner_of(composition)
    parent = composition.candidates.get(position=2).revision.adapter
    Adapter.objects.filter(pk=parent.pk).update(visibility="private")
    adapter = publish(composition)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(owner)}")
    body = {"repository": f"{owner.username}/copy", "visibility": "public"}
    refused = client.post(f"/api/models/{adapter.full_name}/duplicate", body, format="json")
    # Not a 409, for which clients want an address.
    assert (refused.status_code, "these are private" in refused["X-Error-Message"]) == (400, True)
    body = {"repository": f"{owner.username}/copy"}
    assert client.post(f"/api/models/{adapter.full_name}/duplicate", body, format="json").status_code == 200
    assert Adapter.objects.get(name="copy").is_private


def make_public(adapter: Adapter, owner, door: str, tmp_path: Path) -> int:
    client = APIClient()
    name = adapter.full_name
    if door == "page":
        client.force_login(owner)
        return client.post(f"/{name}/settings", {"visibility": "public"}, format="multipart").status_code
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(owner)}")
    if door == "api":
        return client.patch(f"/api/v1/adapters/{name}/", {"visibility": "public"}, format="json").status_code
    if door == "hub":
        return client.put(f"/api/models/{name}/settings", {"private": False}, format="json").status_code
    folder = make_folder(tmp_path / "again", seed=3)
    files = [(folder / file).open("rb") for file in ("adapter_config.json", "adapter_model.safetensors")]
    fields = {"name": adapter.name, "visibility": "public", "files": files}
    return client.post("/api/v1/adapters/", fields, format="multipart").status_code


def test_what_has_a_parent_in_quarantine_is_not_published(tmp_path):
    composition = finished(tmp_path)
    parent = composition.candidates.get(position=0).revision.adapter
    moderation.quarantine(parent, moderator=None, reason="x")
    with pytest.raises(ParentInQuarantine, match=f"what this is made of, {naming.HIDDEN}"):
        publish(composition)
    moderation.release(parent, moderator=None)
    assert publish(composition).kind == "composed"


def test_what_came_into_quarantine_while_a_composition_waited_is_not_composed(fake_engine):
    composition = make_composition()
    module = composition.candidates.get(position=1).revision.adapter
    moderation.quarantine(module, moderator=None, reason="x")
    claimed = jobs.claim(composition.pk, "w")
    assert claimed
    worker.run(claimed)
    composition.refresh_from_db()
    assert composition.status == "failed"
    assert composition.error == ParentInQuarantine(naming.HIDDEN).message
