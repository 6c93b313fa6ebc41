"""The publish path: repositories, branches, tags, settings, and commits of files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from registry import cards, commits, duplicating, filenames, moving, publishing, refs, rights, sent, storage
from registry.commits import Delete, DeleteFolder, FileNotThere, NameTaken, Operation, Put
from registry.errors import InspectionRefused
from registry.hub import errors, front_matter, gitignore, refused, repositories, sending
from registry.hub.bodies import BadRequest, body_of, text_in
from registry.hub.doors import Caller, by_method, door
from registry.hub.errors import EntryNotFound, Moved, RevisionNotFound
from registry.hub.ndjson import BadLine, Lines
from registry.hub.repositories import NotWritable, Repository
from registry.models import Adapter, Blob, Namespace, Ref, Revision, User
from registry.quotas import QuotaReached
from registry.uploads import FORM_ALLOWANCE_BYTES
from web.errors import DomainError, Forbidden, NotFound

# Files up to this size come inside of the commit, larger ones by Git LFS or Xet, as the client likes.
INLINE_BYTES = storage.MAX_GIT_BYTES
MAX_FILES_PER_CALL = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_WARNED_NAMES = 10


# --- What is written to ----------------------------------------------------------------------------------------


def writable(caller: Caller, name: str) -> tuple[User, Adapter, Repository]:
    """The adapter to be changed. Raises TokenNeeded, RepositoryNotFound, Forbidden, NotWritable, Quarantined."""
    repository = repositories.find(caller.person, name)
    person = caller.writer()
    if repository.adapter is None:
        raise NotWritable(repository.name)
    rights.require_change(person, repository.adapter)
    return person, repository.adapter, repository


def writable_by_body(caller: Caller, name: str) -> tuple[User, Adapter]:
    """As `writable`, for a name in the body: 307 would lead back to the same address, so a moved one is a BadRequest."""
    try:
        person, adapter, _ = writable(caller, name)
    except Moved as move:
        raise BadRequest(f"{move.old} is called {move.new} now. Ask for it by that name.") from move
    return person, adapter


def page_of(request: HttpRequest, adapter: Adapter) -> str:
    return request.build_absolute_uri(adapter.get_absolute_url())


# --- Repositories ------------------------------------------------------------------------------------------------


@door("POST")
def create(request: HttpRequest, caller: Caller) -> JsonResponse:
    """A new repository."""
    person = caller.writer()
    body = body_of(request)
    _require_model(body)
    owner, name = _split(
        text_in(body, "name"), text_in(body, "organization", default="") or person.get_username()
    )
    visibility = _visibility(body) or "public"
    license = text_in(body, "license", default="")
    if body.get("files"):
        raise BadRequest(
            "A repository is made without files here. Leave 'files' out and send them in a commit."
        )

    def make(namespace: Namespace) -> Adapter:
        with transaction.atomic():
            adapter = commits.create_adapter(
                author=person, namespace=namespace, name=name, visibility=visibility
            )
            return publishing.update_adapter(adapter, actor=person, license=license) if license else adapter

    return _new_repository(request, person, owner, name, make)


@door("POST")
def duplicate(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """A copy of a repository under another name, made here at once."""
    source = repositories.find(caller.person, repo).adapter
    person = caller.writer()
    if source is None:
        raise BadRequest(f"{repo} is a base model that is hosted here, and only LoRA modules are duplicated.")
    body = body_of(request)
    owner, name = _split(text_in(body, "repository"), person.get_username())
    visibility = _visibility(body)
    return _new_repository(
        request,
        person,
        owner,
        name,
        lambda namespace: duplicating.duplicate(
            source, actor=person, namespace=namespace, name=name, visibility=visibility
        ),
        filesCopyPending=False,
    )


@door("POST")
def copy_files(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    """Have weights of this repository at hand for a commit to another, which clients make right after this."""
    source = repositories.find(caller.person, repo)
    caller.writer()
    body = body_of(request)
    target, files = body.get("target"), body.get("files")
    if not isinstance(target, dict) or not isinstance(files, list):
        raise BadRequest("'target' is missing or no object, or 'files' is no list.")
    if not all(isinstance(file, dict) for file in files) or len(files) > MAX_FILES_PER_CALL:
        raise BadRequest(f"'files' holds something else than files, or more than {MAX_FILES_PER_CALL}.")
    _require_model(target)
    person, adapter = writable_by_body(caller, text_in(target, "name"))
    if source.adapter is not None:
        duplicating.require_copyable(source.adapter, adapter.namespace, adapter.visibility, person)
    failed = []
    for file in files:
        sha256 = text_in(file, "sha256")
        blob = source.blob_called(sha256)
        if blob is None:
            failed.append({"sha256": sha256, "error": f"{source.name} has no such file."})
        else:
            sent.note_sent(person, blob)  # keeps it until the commit
    return JsonResponse({"failed": failed})


def _new_repository(
    request: HttpRequest,
    person: User,
    owner: str,
    name: str,
    make: Callable[[Namespace], Adapter],
    **also: Any,
) -> JsonResponse:
    """What `make` makes of the namespace `owner`. One that exists is a 409 that names its address, so that `exist_ok` finds it."""
    try:
        namespace = rights.writable_namespace(person, owner, adapter=name)
    except NotFound as error:
        raise Forbidden(error.message) from error
    try:
        adapter = make(namespace)
    except NameTaken as error:
        return errors.answer(error, **_named(request, error.adapter))
    except publishing.NameMoved as error:
        current = moving.moved_from(owner, name)
        if current is None or not Adapter.objects.visible_to(person).filter(pk=current.pk).exists():
            raise BadRequest(error.message) from error
        return errors.answer(NameTaken(current), **_named(request, current))
    except DomainError as error:
        if error.status != 409:
            raise
        raise BadRequest(error.message) from error  # as a 409 clients would take it for theirs
    return JsonResponse({**_named(request, adapter), **also})


@door("DELETE")
def delete(request: HttpRequest, caller: Caller) -> JsonResponse:
    person = caller.writer()
    body = body_of(request)
    _require_model(body)
    owner, name = _split(
        text_in(body, "name"), text_in(body, "organization", default="") or person.get_username()
    )
    person, adapter = writable_by_body(caller, f"{owner}/{name}")
    publishing.withdraw(adapter, actor=person)
    return JsonResponse({})


@door("POST")
def move(request: HttpRequest, caller: Caller) -> JsonResponse:
    caller.writer()
    body = body_of(request)
    _require_model(body)
    person, adapter = writable_by_body(caller, text_in(body, "fromRepo"))
    owner, _, name = text_in(body, "toRepo").partition("/")
    try:
        namespace = rights.writable_namespace(person, owner)
    except NotFound as error:
        raise Forbidden(error.message) from error
    moved = moving.move(adapter, actor=person, namespace=namespace, name=name)
    return JsonResponse(_named(request, moved))


@door("PUT")
def change_settings(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    person, adapter, _ = writable(caller, repo)
    body = body_of(request)
    if body.get("gated") is not None and body["gated"] is not False:
        raise BadRequest("Nothing is gated here: make the repository private instead.")
    visibility = _visibility(body)
    if visibility:
        adapter = publishing.update_adapter(adapter, actor=person, visibility=visibility)
    return JsonResponse({"private": adapter.is_private, "visibility": adapter.visibility, "gated": False})


def _split(name: str, organisation: str) -> tuple[str, str]:
    owner, slash, own = name.partition("/")
    return (owner, own) if slash else (organisation, name)


def _named(request: HttpRequest, adapter: Adapter) -> dict[str, str]:
    return {"url": page_of(request, adapter), "id": adapter.full_name, "name": adapter.full_name}


def _require_model(body: dict[str, Any]) -> None:
    kind = body.get("type") or "model"
    if kind != "model":
        raise BadRequest(f"Only models are kept here, no {str(kind)[:40]!r}.")


def _visibility(body: dict[str, Any]) -> str:
    """public, private, or "" if the body says nothing; older clients say `private`. Raises BadRequest.

    What is only like a boolean is refused, not read: "true" taken for nothing would publish a private repository.
    """
    private, visibility = body.get("private"), body.get("visibility")
    if private is not None and not isinstance(private, bool):
        raise BadRequest(f"'private' is true or false, not {_shown(private)}.")
    if visibility not in (None, *Adapter.Visibility.values):
        raise BadRequest(f"'visibility' is 'public' or 'private', not {_shown(visibility)}.")
    by_private = "" if private is None else "private" if private else "public"
    if visibility and by_private and visibility != by_private:
        raise BadRequest(
            f"'private' and 'visibility' contradict each other: {_shown(private)}, {visibility!r}."
        )
    return visibility or by_private


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]


# --- Branches and tags -------------------------------------------------------------------------------------------


@door("POST")
def _create_branch(request: HttpRequest, caller: Caller, repo: str, name: str) -> JsonResponse:
    person, adapter, repository = writable(caller, repo)
    body = body_of(request)
    if body.get("emptyBranch"):
        raise BadRequest(
            "A branch begins with the files of a revision here. Make it without 'emptyBranch' and delete them in a commit."
        )
    start = text_in(body, "startingPoint", default="") or publishing.MAIN
    _create_ref(adapter, person, repository, Ref.Kind.BRANCH, name, start)
    return JsonResponse({})


@door("DELETE")
def _delete_branch(request: HttpRequest, caller: Caller, repo: str, name: str) -> JsonResponse:
    return _delete_ref(caller, repo, Ref.Kind.BRANCH, name)


@door("POST")
def _create_tag(request: HttpRequest, caller: Caller, repo: str, name: str) -> JsonResponse:
    """Here `name` is the revision to be tagged; the tag is in the body."""
    person, adapter, repository = writable(caller, repo)
    _create_ref(adapter, person, repository, Ref.Kind.TAG, text_in(body_of(request), "tag"), name)
    return JsonResponse({})


@door("DELETE")
def _delete_tag(request: HttpRequest, caller: Caller, repo: str, name: str) -> JsonResponse:
    return _delete_ref(caller, repo, Ref.Kind.TAG, name)


branch = by_method(POST=_create_branch, DELETE=_delete_branch)
tag = by_method(POST=_create_tag, DELETE=_delete_tag)


def _create_ref(
    adapter: Adapter, person: User, repository: Repository, kind: str, name: str, start: str
) -> None:
    snapshot = repository.snapshot(start)
    assert snapshot.revision is not None
    refs.create(adapter, actor=person, kind=kind, name=name, revision=snapshot.revision)


def _delete_ref(caller: Caller, repo: str, kind: str, name: str) -> JsonResponse:
    person, adapter, _ = writable(caller, repo)
    try:
        refs.delete(adapter, actor=person, kind=kind, name=name)
    except NotFound as error:
        raise RevisionNotFound(repo, name) from error
    return JsonResponse({})


# --- Before a commit -----------------------------------------------------------------------------------------------


@door("POST")
def validate_yaml(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Whether a card's front matter can be kept. Clients ask before every commit that has a README.md."""
    text = text_in(body_of(request), "content", default="")
    try:
        said = cards.split_card(cards.decode_card(text.encode("utf-8", "surrogatepass")))[0]
    except cards.CardRefused as error:
        return JsonResponse({"errors": [{"message": error.problem.message}], "warnings": []}, status=400)
    warnings = [{"message": message} for message in front_matter.unreadable(said).values()]
    return JsonResponse({"errors": [], "warnings": warnings})


@door("POST")
def preupload(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    """How each file is to be sent, and what is at its path: equal bytes need not be sent again.

    Everything that can be refused by name, size and right is refused here, before the bytes travel. Files that would be left
    out are only named, even where there are no others: who sends a large folder asks by batches, and a batch that is
    refused comes again for ever.
    """
    person, adapter, repository = writable(caller, repo)
    _require_no_pull_request(request)
    _, head = _branch(adapter, repository, revision)
    refused.forget(person=person, head=head)
    body = body_of(request)
    files = body.get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise BadRequest("'files' is missing or no list.")
    if len(files) > MAX_FILES_PER_CALL:
        raise BadRequest(f"There are {len(files)} files; ask about {MAX_FILES_PER_CALL} at a time.")
    known = {file.path: file.blob for file in repository.snapshot_of(head).files()}
    ignored = _gitignore(body, known.get(gitignore.NAME))
    rows, skipped = [], []
    for file in files:
        path, size = text_in(file, "path"), file.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadRequest("A file's 'size' is missing or no number.")
        why = _why_skipped(path, size)
        if not why and ignored.leave_out(path):
            why = f"{gitignore.NAME} leaves it out."
        if why:
            skipped.append(f"{path} is not sent. {why}")
        rows.append(_how_to_send(path, size, known.get(path), is_skipped=bool(why)))
    if len(rows) - len(skipped) > settings.MAX_FILES_PER_ADAPTER:
        # Said by the commit, clients would try again and again with fewer, and leave the first part behind.
        raise BadRequest(
            f"There are {len(rows) - len(skipped)} files; an adapter may have {settings.MAX_FILES_PER_ADAPTER}."
        )
    return _warn(JsonResponse({"files": rows}), "left-out", skipped)


def _how_to_send(path: str, size: int, known: Blob | None, *, is_skipped: bool) -> dict[str, Any]:
    if problems := filenames.check_names([path]):
        raise BadRequest(problems[0].message)
    if size > settings.MAX_FILE_BYTES and not is_skipped:
        raise BadRequest(f"{path} has {size:,} bytes; one file may have {settings.MAX_FILE_BYTES:,}.")
    mode = "lfs" if size > INLINE_BYTES else "regular"
    row: dict[str, Any] = {"path": path, "uploadMode": mode, "shouldIgnore": is_skipped}
    if known is not None and (oid := known.sha256 if mode == "lfs" else known.git_sha1):
        row["oid"] = oid
    return row


def _gitignore(body: dict[str, Any], kept: Blob | None) -> gitignore.Rules:
    """The rules that the client sends along; else those of the .gitignore that the repository has, if any."""
    text = text_in(body, "gitIgnore", default="")
    if body.get("gitIgnore") is None and kept is not None:
        with storage.open_blob(kept) as stream:
            text = stream.read(filenames.MAX_TEXT_BYTES).decode("utf-8", "replace")
    return gitignore.Rules(text)


def _why_skipped(path: str, size: int) -> str:
    """Why a file of this name and size would be left out of any commit, whatever its bytes."""
    if path in filenames.ADAPTER_FILES:
        return ""
    return filenames.why_left_out_unread(path, size)


# --- Commits ---------------------------------------------------------------------------------------------------------


@door("POST")
def commit(request: HttpRequest, caller: Caller, repo: str, revision: str) -> HttpResponseBase:
    """All operations of the body as one commit on a branch, or none."""
    person, adapter, repository = writable(caller, repo)
    _require_no_pull_request(request)
    branch, head = _branch(adapter, repository, revision)
    # Base64 takes four letters for three bytes.
    sending.length_of(
        request, most=settings.MAX_ADAPTER_BYTES * 4 // 3 + FORM_ALLOWANCE_BYTES, what="The commit"
    )
    with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="commit-") as folder, _made() as made:
        header, operations = _read(request, person, Path(folder), made)
        refused.require_no_part(person=person, head=head, operations=operations)
        title, _, rest = text_in(header, "summary", default="").strip().partition("\n")
        description = [rest.strip(), text_in(header, "description", default="")]
        try:
            outcome = commits.commit(
                adapter,
                actor=person,
                branch=branch,
                operations=operations,
                message=title[:500] or "Upload",
                description="\n\n".join(text for text in description if text),
                parent=text_in(header, "parentCommit", default=""),
            )
        except FileNotThere as error:
            newest = commits.branch_head(adapter, branch)
            raise EntryNotFound(error.path, newest.commit, error.message) from error
        except (InspectionRefused, QuotaReached) as error:
            refused.remember(error, person=person, head=head, operations=operations)
            raise
    sent.let_go_of_done(person, sending.xorbs_for(adapter.pk))
    oid = outcome.revision.commit
    answer = {
        "success": True,
        "commitOid": oid,
        "commitUrl": f"{page_of(request, adapter)}/commit/{oid}",
        "hookOutput": "",
    }
    return _warn(JsonResponse(answer), "commit", outcome.warnings)


def _require_no_pull_request(request: HttpRequest) -> None:
    if request.GET.get("create_pr", "") in {"1", "true"}:
        raise BadRequest("There are no pull requests here. Push to a branch of your own instead.")


def _branch(adapter: Adapter, repository: Repository, revision: str) -> tuple[str, Revision]:
    """The branch that an address means, and its newest revision. Raises RevisionNotFound, BadRequest for a tag or a commit."""
    name = repositories.short_name(revision)
    try:
        return name, commits.branch_head(adapter, name)
    except NotFound as error:
        repository.snapshot(revision)
        raise BadRequest(f"{revision[:100]!r} is no branch. Commits go to branches only.") from error


@contextmanager
def _made() -> Iterator[list[Blob]]:
    """Blobs made for a commit; those that no revision has in the end are discarded."""
    made: list[Blob] = []
    try:
        yield made
    finally:
        storage.discard(made)


def _read(
    request: HttpRequest, person: User, folder: Path, made: list[Blob]
) -> tuple[dict[str, Any], list[Operation]]:
    """The header and the operations; files inside of the body are stored and added to `made`."""
    lines = Lines(request, folder)
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    for line in lines:
        key, value = line.get("key"), line.get("value")
        if not isinstance(value, dict):
            raise BadLine(lines.number, "has no object as its value")
        if key == "header":
            header = value
        elif key == "file":
            target = folder / "content"
            lines.content(value.get("content"), target, encoding=str(value.get("encoding", "base64")))
            made.append(storage.store_file(target))
            operations.append(Put(text_in(value, "path"), made[-1]))
        elif key == "lfsFile":
            operations.append(Put(text_in(value, "path"), _sent_before(value, person)))
        elif key == "deletedFile":
            operations.append(Delete(text_in(value, "path")))
        elif key == "deletedFolder":
            operations.append(DeleteFolder(text_in(value, "path")))
        else:
            raise BadLine(lines.number, f"asks for something unknown: {str(key)[:40]!r}")
    if header is None:
        raise BadRequest("The commit has no header line.")
    return header, operations


def _sent_before(value: dict[str, Any], person: User) -> Blob:
    """The blob that an `lfsFile` line names, if this person sent it or may read it. Raises BadRequest."""
    oid = text_in(value, "oid")
    blob = Blob.objects.filter(sha256=oid).first() if _SHA256.match(oid) else None
    size = value.get("size")
    if blob is None or not rights.may_read_blob(person, blob) or size not in (None, blob.size_bytes):
        raise BadRequest(
            f"You have sent no file with the sha256 {oid[:64]!r} for {text_in(value, 'path')}. Send it first, then commit."
        )
    return blob


def _warn(response: JsonResponse, topic: str, sentences: list[str]) -> JsonResponse:
    """Sentences that the client prints. It does so once for each topic, so other sentences are another topic."""
    if sentences:
        shown = sentences[:_WARNED_NAMES]
        more = len(sentences) - len(shown)
        text = errors.in_header(" ".join([*shown, f"(and {more} more)"] if more else shown))
        response["X-HF-Warning"] = f"{topic}-{hashlib.sha256(text.encode()).hexdigest()[:8]}; {text}"
    return response
