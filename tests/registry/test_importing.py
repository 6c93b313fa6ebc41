"""Importing from another Hub. Here the other Hub is this server, asked over HTTP by the real client."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from registry import importing, other_hubs
from registry.importing import ImportFailed
from registry.models import Adapter, User
from tests.beside import after
from tests.factories import make_base_model, make_token, make_user, namespace_of, publish_fake
from tests.fake_adapters import files_of, make_adapter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hub(live_server: Any, settings: Any) -> str:
    settings.IMPORT_ENDPOINTS = [live_server.url]
    return str(live_server.url)


@pytest.fixture
def ada(tmp_path: Path) -> User:
    """She has a private adapter on the other Hub, so that nobody else has its bytes."""
    make_base_model()
    ada = make_user("ada")
    card = "---\nlicense: mit\ntags: [colour]\n---\n# Says the colour\n"
    publish_fake(tmp_path, "colour", owner=ada, visibility="private", config={"card": card})
    return ada


def take(actor: User, source: str = "ada/colour", **options: Any) -> importing.Imported:
    return importing.import_adapter(actor=actor, namespace=namespace_of(actor), source=source, **options)


def test_an_adapter_comes_with_card_licence_base_and_the_commit_it_was_pinned_to(hub: str, ada: User):
    bob = make_user("bob")
    done = take(bob, token=make_token(ada, "read"))
    source = Adapter.objects.get(namespace__name="ada")
    assert done.is_new
    assert done.fetched_bytes == source.size_bytes
    adapter = Adapter.objects.get(namespace__name="bob")
    assert (adapter.name, adapter.license, adapter.tags) == ("colour", "mit", ["colour"])
    assert adapter.base_model == source.base_model
    assert adapter.is_composable
    assert adapter.head.message == f"Import ada/colour at {source.head.commit} from {hub}"
    assert adapter.head.tensor_sha256 == source.head.tensor_sha256


def test_a_second_time_there_is_nothing_to_do_and_known_bytes_are_not_fetched(hub: str, ada: User):
    bob = make_user("bob")
    token = make_token(ada, "read")
    take(bob, token=token)
    again = take(bob, token=token)
    assert (again.is_new, again.fetched_bytes) == (False, 0)
    assert take(bob, token=token, name="twin").fetched_bytes == 0


def test_the_command_asks_before_it_covers_what_was_made_here(hub: str, ada: User, tmp_path: Path):
    bob = make_user("bob")
    token = make_token(ada, "read")
    take(bob, token=token)
    publish_fake(tmp_path, "colour", owner=bob, config={"seed": 5})
    assert not take(bob, token=token).is_new  # nothing newer there: nothing is covered
    publish_fake(tmp_path, "colour", owner=ada, visibility="private", config={"seed": 6})
    with pytest.raises(importing.ChangedHere, match="bob/colour: newer versions were made here"):
        take(bob, token=token)
    assert Adapter.objects.get(namespace__name="bob").revisions.count() == 2
    assert take(bob, token=token, overwrite=True).is_new


def test_what_is_made_here_while_files_are_fetched_is_not_covered(
    hub: str, ada: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bob = make_user("bob")
    token = make_token(ada, "read")
    take(bob, token=token)
    publish_fake(tmp_path, "colour", owner=ada, visibility="private", config={"seed": 6})
    change = lambda: publish_fake(tmp_path, "colour", owner=bob, config={"seed": 5})  # noqa: E731
    after(other_hubs.OtherHub, "fetch", change, monkeypatch)
    with pytest.raises(importing.ChangedHere):
        take(bob, token=token)
    assert Adapter.objects.get(namespace__name="bob").revisions.count() == 2
    assert take(bob, token=token, overwrite=True).is_new


def test_what_the_importer_may_not_read_there_is_not_there(hub: str, ada: User):
    for options in ({"source": "ada/colour"}, {"source": "ada/none"}, {"source": "no name"}):
        with pytest.raises(ImportFailed):
            take(make_user(), **options)
    with pytest.raises(ImportFailed, match="ada/colour has no such branch, tag or commit"):
        take(ada, revision="v9", token=make_token(ada), name="other")
    assert Adapter.objects.count() == 1


def test_only_the_listed_hubs_are_asked(hub: str, ada: User):
    with pytest.raises(ImportFailed, match="only"):
        take(ada, endpoint="http://169.254.169.254")


def test_a_repository_that_is_no_adapter_is_refused(hub: str, ada: User, tmp_path: Path):
    from registry import commits

    commits.create_adapter(author=ada, namespace=namespace_of(ada), name="empty")
    with pytest.raises(ImportFailed, match="no adapter"):
        take(make_user(), "ada/empty")


def test_many_are_imported_by_a_pattern_with_progress(hub: str, ada: User, tmp_path: Path):
    for number in range(2):
        publish_fake(tmp_path, f"module-{number}", owner=ada, config={"seed": number})
    make_user("bob")
    for expected in ("bytes fetched", "here already"):
        out = io.StringIO()
        call_command("import_adapter", "ada/module-*", "--user", "bob", stdout=out)
        lines = out.getvalue().splitlines()
        assert [line.split()[:2] for line in lines] == [["1/2", "bob/module-0"], ["2/2", "bob/module-1"]]
        assert all(line.endswith(expected) for line in lines)


@pytest.mark.parametrize("sources", [["ada/none-*"], ["*/colour"], ["ada/colour"]])
def test_what_cannot_be_imported_fails_the_command(hub: str, ada: User, sources: list[str]):
    make_user("bob")
    with pytest.raises(CommandError):
        call_command("import_adapter", *sources, "--user", "bob", stderr=io.StringIO())


def test_a_pickled_adapter_is_converted(hub: str, ada: User, tmp_path: Path):
    """Our own Hub keeps no pickle, so one is put into its database behind the rules' back."""
    import torch
    from safetensors.torch import load_file

    from registry.models import RevisionFile
    from registry.storage import store_file

    folder = make_adapter(tmp_path / "pickled", seed=7)
    weights = folder / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()
    source = Adapter.objects.get(namespace__name="ada")
    assert source.head is not None
    source.head.files.all().delete()
    for path, file in files_of(folder).items():
        RevisionFile.objects.create(revision=source.head, path=path, blob=store_file(file))
    adapter = take(make_user("bob"), token=make_token(ada)).adapter
    assert [file.path for file in adapter.head.files.all()] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.dumps(adapter.head.facts["rank"]) == "2"


def test_two_imports_of_one_person_at_once_do_not_share_what_is_unfinished(
    hub: str, ada: User, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    bob = make_user("bob")
    token = make_token(ada, "read")
    source = Adapter.objects.get()
    inner: list[importing.Imported] = []
    begin_another = lambda: inner.append(take(bob, token=token, name="second"))  # noqa: E731
    after(other_hubs.OtherHub, "fetch", begin_another, monkeypatch)
    assert take(bob, token=token, name="first").is_new
    assert inner[0].fetched_bytes == source.size_bytes
    for name in ("first", "second"):
        found = Adapter.objects.get(namespace__name="bob", name=name).head
        assert found.tensor_sha256 == source.head.tensor_sha256
    assert not list((data_dir / "tmp").glob("*.part"))
