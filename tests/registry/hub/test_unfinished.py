"""A repository that has no weights yet: where it is seen, what is held against it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from registry import commits, preparing, publishing, refs, search, storage
from registry.commits import Delete, DeleteFolder, Put
from registry.errors import InspectionRefused
from registry.models import Adapter, BaseModel, Blob, Revision, User
from registry.search import AdapterQuery
from tests.factories import make_base_model, namespace_of
from tests.fake_adapters import TINY_MATRICES, files_of, make_adapter

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter(ada: User) -> Adapter:
    make_base_model()
    return commits.create_adapter(author=ada, namespace=namespace_of(ada), name="new")


def put(path: str, content: bytes) -> Put:
    return Put(path, storage.store_stream([content]))


def puts(folder: Path) -> list[Put]:
    return [put(name, path.read_bytes()) for name, path in files_of(folder).items()]


def commit(adapter: Adapter, actor: User, *operations: commits.Operation, **said: Any) -> Revision:
    return commits.commit(
        adapter,
        actor=actor,
        operations=operations,
        message="Change",
        **said,
    ).revision


def test_its_page_says_what_is_missing_and_lists_of_modules_leave_it_out(adapter: Adapter, ada: User):
    commit(adapter, ada, put("README.md", b"---\nlicense: mit\n---\n# Soon\n"))
    page = Client().get("/ada/new").content.decode()
    assert "Not complete yet" in page
    assert "adapter_config.json and adapter_model.safetensors are missing" in page
    assert "Soon" in page
    assert not search.find(AdapterQuery(), person=None).items
    assert search.count(AdapterQuery(namespace="ada"), person=None) == 1
    for path in ("/ada", "/modules", "/ada/new/versions", "/api/v1/adapters/ada/new/"):
        assert Client().get(path).status_code == 200
    assert Adapter.objects.get().license == "mit"


def test_it_becomes_a_module_with_its_weights_and_stops_being_one_without(
    adapter: Adapter, ada: User, tmp_path: Path
):
    revision = commit(adapter, ada, *puts(make_adapter(tmp_path / "a")))
    adapter.refresh_from_db()
    assert (revision.is_composable, adapter.is_composable, adapter.rank) == (True, True, 2)
    assert search.count(AdapterQuery(), person=None) == 1
    publishing.recheck_adapters(adapter.base_model)  # type: ignore[arg-type]
    commit(adapter, ada, Delete("adapter_model.safetensors"))
    adapter.refresh_from_db()
    assert (adapter.is_composable, adapter.rank) == (False, None)
    publishing.recheck_adapters(adapter.base_model)  # type: ignore[arg-type]
    assert not Adapter.objects.get().is_composable
    assert search.count(AdapterQuery(), person=None) == 0


def test_a_commit_elsewhere_changes_nothing_on_main(adapter: Adapter, ada: User, tmp_path: Path):
    head = commits.branch_head(adapter, "main")
    refs.create(adapter, actor=ada, kind="branch", name="dev", revision=head)
    commit(adapter, ada, *puts(make_adapter(tmp_path / "a")), branch="dev")
    adapter.refresh_from_db()
    assert (adapter.rank, adapter.head_id) == (None, head.pk)


def test_a_branch_for_another_base_model_is_compared_with_its_own(
    adapter: Adapter, ada: User, tmp_path: Path
):
    wide = dict.fromkeys(TINY_MATRICES, (8, 10))
    base = make_base_model("demo/wide-t5", matrices={path: list(sizes) for path, sizes in wide.items()})
    head = commit(adapter, ada, *puts(make_adapter(tmp_path / "a")))
    adapter.refresh_from_db()
    refs.create(adapter, actor=ada, kind="branch", name="dev", revision=head)
    folder = make_adapter(tmp_path / "b", base_matrices=wide, base_model_name_or_path=base.name)
    commit(adapter, ada, *puts(folder), branch="dev")
    revision = commit(adapter, ada, put("README.md", b"# Wide\n"), branch="dev")
    assert (revision.base_fit, revision.is_composable) == (Revision.BaseFit.FITS, True)


def test_a_branch_that_names_the_base_model_as_main_does_is_for_what_somebody_said_of_that(
    adapter: Adapter, ada: User, tmp_path: Path
):
    wide = {path: [8, 10] for path in TINY_MATRICES}
    make_base_model("demo/wide-t5", matrices=wide)
    head = commit(adapter, ada, *puts(make_adapter(tmp_path / "a", base_model_name_or_path="/mine")))
    publishing.update_adapter(adapter, actor=ada, base_model="demo/tiny-t5")
    commit(adapter, ada, *puts(make_adapter(tmp_path / "a", base_model_name_or_path="/mine", seed=1)))
    BaseModel.objects.named("demo/wide-t5").aliases.create(text="/mine")
    refs.create(adapter, actor=ada, kind="branch", name="dev", revision=head)
    revision = commit(adapter, ada, put("README.md", b"# Words\n"), branch="dev")
    assert revision.base_fit == Revision.BaseFit.FITS


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("adapter_config.json", b'{"peft_type": "LOHA"}', "LOHA"),
        ("adapter_config.json", b"not json", "adapter_config.json"),
        ("adapter_model.safetensors", b"\x00" * 20, "adapter_model.safetensors"),
        ("adapter_model.bin", b"no pickle", "adapter_model.bin"),
        ("README.md", b"---\na: [\n---\n", "front matter"),
        ("adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid x", "pointer"),
        ("../x.txt", b"x", "segment"),
        ("a//x.txt", b"x", "segment"),
        ("/etc/passwd", b"x", "absolute"),
        (".git/config", b"x", ".git"),
        ("sub\\x.txt", b"x", "backslash"),
        ("ü.txt", b"x", "ASCII"),
    ],
)
def test_what_is_there_is_held_to_the_rules(
    adapter: Adapter, ada: User, path: str, content: bytes, said: str
):
    before = Revision.objects.count()
    with pytest.raises(InspectionRefused, match=re.escape(said)):
        commit(adapter, ada, put(path, content))
    assert Revision.objects.count() == before


def test_a_file_cannot_be_a_folder_too(adapter: Adapter, ada: User):
    commit(adapter, ada, put("notes.txt", b"x"))
    with pytest.raises(InspectionRefused, match="folder of another file"):
        commit(adapter, ada, put("notes.txt/a.txt", b"x"))


def test_other_weights_than_the_config_says_are_refused_and_nothing_changes(
    adapter: Adapter, ada: User, tmp_path: Path
):
    head = commit(adapter, ada, *puts(make_adapter(tmp_path / "a")))
    other = make_adapter(tmp_path / "b", rank=4)
    with pytest.raises(InspectionRefused, match="rank"):
        commit(
            adapter,
            ada,
            put("adapter_model.safetensors", files_of(other)["adapter_model.safetensors"].read_bytes()),
        )
    assert commits.branch_head(adapter, "main") == head


def test_operations_count_in_their_order(adapter: Adapter, ada: User):
    commit(adapter, ada, put("a/1.txt", b"1"), put("a/2.txt", b"2"))
    revision = commit(adapter, ada, DeleteFolder("a/"), put("a/3.txt", b"3"), put("a/3.txt", b"4"))
    assert [file.path for file in revision.files.all()] == ["a/3.txt"]
    assert revision.size_bytes == 1
    again = commit(adapter, ada, put("a/3.txt", b"4"))
    assert again == revision


def test_a_commit_that_came_between_is_kept(adapter: Adapter, ada: User, monkeypatch: pytest.MonkeyPatch):
    """Somebody commits while our files are read: ours goes on top of theirs."""
    prepare, is_first = preparing.prepare, [True]

    def slow(*args: object, **options: object) -> object:
        if is_first.pop() if is_first else False:
            commit(adapter, ada, put("theirs.txt", b"x"))
        return prepare(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "prepare", slow)
    revision = commit(adapter, ada, put("ours.txt", b"y"))
    assert sorted(file.path for file in revision.files.all()) == ["ours.txt", "theirs.txt"]


def test_pickles_stay_out_with_a_warning(adapter: Adapter, ada: User):
    outcome = commits.commit(
        adapter, actor=ada, operations=[put("training_args.bin", b"x"), put("a.txt", b"x")], message="All"
    )
    assert [file.path for file in outcome.revision.files.all()] == ["a.txt"]
    assert "training_args.bin was left out" in outcome.warnings[0]
    assert Blob.objects.count() >= 1
