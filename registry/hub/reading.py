"""The read path: files, what there is to know about a repository, its revisions and its history."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import TooManyFieldsSent
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from registry import downloads
from registry.hub import answers, errors, pages, repositories
from registry.hub.bodies import BadRequest, body_of
from registry.hub.doors import Caller, door
from registry.hub.errors import EntryNotFound, HubError, RepositoryNotFound
from registry.hub.repositories import File, Snapshot, line_of
from registry.models import Revision, RevisionFile
from web.errors import DomainError

# What clients do with a repository elsewhere, and what to do here instead.
INSTEAD = {
    "discussions": "There are no discussions and pull requests here. Push to a branch of your own instead.",
    "lfs-files": "Single files of older versions are not deleted here. Delete the repository, or leave them out of new ones.",
    "super-squash": "History is not squashed here: what was composed names the versions of its modules.",
    "user-access-request": "Nothing is gated here, so nobody asks for access. Make the repository private instead.",
}


class NotServed(DomainError):
    code = "not_served"

    def __init__(self, what: str) -> None:
        super().__init__(INSTEAD.get(what, f"There is no {what[:40]!r} of repositories here."))


class OtherKind(HubError):
    """A repository that is no model. Clients have to take it for one that is not there."""

    code = "not_found"
    hub_code = "RepoNotFound"

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"There are no {kind} here: this registry keeps LoRA modules, and base models for them."
        )


class UnknownAddress(HubError):
    code = "not_served"

    def __init__(self, rest: str) -> None:
        super().__init__(
            f"This registry does not serve {f'/api/{rest[:100]}'!r}. What it has besides repositories of models is at "
            "/api/v1/, described at /api/docs/."
        )


class NoGit(DomainError):
    code = "not_served"

    def __init__(self, repo: str) -> None:
        super().__init__(
            f"{repo[:200]} is no git repository. `hf download` fetches its files and `hf upload` sends new ones."
        )


TREE_PAGE = 1000
EXPANDED_TREE_PAGE = 50
COMMITS_PAGE = 100
LINE_READ_AT_ONCE = 500  # revisions whose files are looked at together, for who changed what last


@door("GET", bucket="resolvers")
def resolve(request: HttpRequest, caller: Caller, repo: str, rest: str) -> HttpResponseBase:
    """A file's bytes, whole or a range; HEAD says what the client's cache has to know about them."""
    snapshot, file = repositories.find_file(caller.person, repo, rest)
    return _sent(request, caller, snapshot, file)


@door("GET", bucket="resolvers")
def raw(request: HttpRequest, caller: Caller, repo: str, rest: str) -> HttpResponseBase:
    """What git would keep at a path: a file's bytes, but of weights the pointer to them."""
    snapshot, file = repositories.find_file(caller.person, repo, rest)
    if not file.is_lfs:
        return _sent(request, caller, snapshot, file)
    etag = f'"{file.oid}"'
    response = HttpResponse(status=304) if downloads.knows(request, etag) else _pointer(request, file)
    response["ETag"] = etag
    response["Cache-Control"] = downloads.ASK_AGAIN
    response["X-Repo-Commit"] = snapshot.commit
    return response


def _pointer(request: HttpRequest, file: File) -> HttpResponse:
    part = downloads.parse_range(request.headers.get("Range", ""), len(file.pointer))
    start, end = (part.start, part.start + part.length) if part else (0, len(file.pointer))
    response = HttpResponse(file.pointer[start:end], content_type="text/plain; charset=utf-8")
    if part:
        response.status_code = 206
        response["Content-Range"] = f"bytes {start}-{end - 1}/{len(file.pointer)}"
    return response


def _sent(request: HttpRequest, caller: Caller, snapshot: Snapshot, file: File) -> HttpResponseBase:
    response = downloads.file_response(request, file.blob, file.path, etag=file.etag)
    if response.status_code == 416:
        outside = errors.answer(downloads.UnsatisfiableRange(file.blob.size_bytes))
        outside["Content-Range"] = response["Content-Range"]
        return outside
    response["X-Repo-Commit"] = snapshot.commit
    response["X-Linked-Etag"] = f'"{file.etag}"'
    response["X-Linked-Size"] = str(file.blob.size_bytes)
    is_sent = downloads.brings_the_file(request, response, file.blob)
    if is_sent and file.is_lfs and snapshot.revision is not None:
        downloads.count_download(request, snapshot.revision, person=caller.person)
    return response


@door("GET")
def info(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    return _told(request, repositories.find(caller.person, repo).snapshot())


@door("GET")
def revision_info(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    return _told(request, repositories.find(caller.person, repo).snapshot(revision))


def _told(request: HttpRequest, snapshot: Snapshot) -> JsonResponse:
    found = answers.model(snapshot, blobs=pages.is_true(request, "blobs"))
    asked = pages.expanded(request)
    return JsonResponse(answers.narrowed(found, asked) if asked else found)


@door("GET")
def tree(request: HttpRequest, caller: Caller, repo: str, rest: str) -> JsonResponse:
    """Files and folders of a revision, or of one folder in it."""
    repository = repositories.find(caller.person, repo)
    revision, path = repository.split(rest.rstrip("/"))
    snapshot = repository.snapshot(revision)
    files = snapshot.files()
    entries = answers.entries(files, below=path, recursive=pages.is_true(request, "recursive"))
    if path and not entries:
        raise EntryNotFound(path, snapshot.commit)
    is_expanded = pages.is_true(request, "expand")
    size = EXPANDED_TREE_PAGE if is_expanded else TREE_PAGE
    rows, next_cursor = pages.page(request, entries, size=size)
    if is_expanded:
        _add_last_commits(snapshot, files, rows)
    return pages.json_page(request, list(rows), next_cursor=next_cursor)


@door("POST")
def paths_info(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    """What is at these paths; those where nothing is are left out. A POST only because the list may be long."""
    snapshot = repositories.find(caller.person, repo).snapshot(revision)
    paths, is_expanded = _asked_paths(request)
    wanted = {path.strip("/") for path in paths}
    files = snapshot.files()
    rows = [entry for entry in answers.entries(files) if entry["path"] in wanted]
    for row in rows:
        if "lfs" in row:
            # Clients want one before they have weights copied: `hub.xet_reading`.
            row["xetHash"] = row["lfs"]["oid"]
    if is_expanded:
        _add_last_commits(snapshot, files, rows)
    return JsonResponse(rows, safe=False)


def _asked_paths(request: HttpRequest) -> tuple[list[str], bool]:
    """The paths of a form or of a JSON object, and whether more is to be told of each. Raises BadRequest."""
    if request.content_type != "application/json":
        return request.POST.getlist("paths"), request.POST.get("expand", "").lower() == "true"
    body = body_of(request)
    paths, expand = body.get("paths"), body.get("expand")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadRequest("'paths' is missing or no list of texts.")
    if not isinstance(expand, bool | None):
        raise BadRequest("'expand' is true or false.")
    if len(paths) > settings.DATA_UPLOAD_MAX_NUMBER_FIELDS:
        raise TooManyFieldsSent
    return paths, bool(expand)


@door("GET")
def refs(request: HttpRequest, caller: Caller, repo: str) -> JsonResponse:
    repository = repositories.find(caller.person, repo)
    return JsonResponse(answers.refs(repository, pull_requests=request.GET.get("include_prs") == "1"))


@door("GET")
def commits(request: HttpRequest, caller: Caller, repo: str, revision: str) -> JsonResponse:
    """The history of a revision, newest first: page `p` of so many commits, as the Hub counts them, from 0 on."""
    repository = repositories.find(caller.person, repo)
    size = pages.whole_number(request, "limit", default=COMMITS_PAGE, most=COMMITS_PAGE) or COMMITS_PAGE
    page = pages.whole_number(request, "p", default=0, most=10**7)
    rows, total = repository.history(repository.snapshot(revision), start=page * size, size=size)
    formatted = "formatted" in pages.expanded(request)
    found: list[object] = [answers.commit(row, formatted=formatted) for row in rows]
    is_last = (page + 1) * size >= total
    response = pages.json_page(request, found, next_cursor=None if is_last else str(page + 1), name="p")
    response["X-Total-Count"] = str(total)
    return response


@door("GET")
def show(request: HttpRequest, caller: Caller, repo: str, rest: str) -> HttpResponseBase:
    """An address that clients print for people (`commit/…`, `tree/…`, `blob/…`), led to our page of that revision.

    What a guest may not see is for the page to refuse: it knows who is signed in.
    """
    namespace, _, name = repo.partition("/")
    try:
        repository = repositories.find(caller.person, repo)
    except RepositoryNotFound:
        return redirect("adapter", namespace=namespace, name=name)
    if repository.base_model is not None:
        return redirect(repository.base_model)
    revision = repository.snapshot(repository.split(rest.rstrip("/"))[0])
    if repository.adapter is not None and revision.revision is not None:
        if revision.revision.pk == repository.adapter.head_id:
            return redirect(repository.adapter)
        return redirect("adapter_revision", namespace=namespace, name=name, commit=revision.commit)
    raise RepositoryNotFound(repo)


@door("GET", "POST", "PUT", "DELETE", "PATCH")
def nothing_here(request: HttpRequest, caller: Caller, kind: str, rest: str) -> JsonResponse:
    """Repositories of other kinds, which the Hub has and we have not: a 404 that clients can read."""
    raise OtherKind(kind)


@door("GET", "POST", "PUT", "DELETE", "PATCH")
def unknown(request: HttpRequest, caller: Caller, rest: str) -> JsonResponse:
    """Whatever else the Hub answers below /api/."""
    raise UnknownAddress(rest)


@door("GET", "POST", "PUT", "DELETE", "PATCH")
def not_served(request: HttpRequest, caller: Caller, rest: str) -> JsonResponse:
    """What else can be done with a repository elsewhere. Not a 404, which clients take for a missing repository."""
    namespace, _, behind = rest.partition("/")
    name, _, what = behind.partition("/")
    repositories.find(caller.person, f"{namespace}/{name}")
    raise NotServed(what.partition("/")[0])


@door("GET", "POST", "PUT", "DELETE", "PATCH")
def no_git(request: HttpRequest, caller: Caller, repo: str, what: str) -> HttpResponse:
    """What git and its extensions ask for: clone, push, locks. git itself shows people only plain text."""
    try:
        repositories.find(caller.person, repo)
        raise NoGit(repo)
    except DomainError as error:
        if what.startswith("info/lfs/"):
            raise
        return errors.in_plain_text(error)


def _add_last_commits(snapshot: Snapshot, files: list[File], rows: list[answers.Json]) -> None:
    """To each row the newest commit that changed it; a folder changes with the files below it."""
    by_file = _last_commits(snapshot, files)
    for row in rows:
        below = [path for path in by_file if path == row["path"] or path.startswith(f"{row['path']}/")]
        newest = max((by_file[path] for path in below), key=lambda found: found.created_at, default=snapshot)
        row["lastCommit"] = answers.last_commit(newest)
        row["securityFileStatus"] = None


def _last_commits(snapshot: Snapshot, files: list[File]) -> dict[str, Snapshot]:
    """For each path the oldest revision in a row, back from this one, that has the same bytes there."""
    found = {file.path: snapshot for file in files}
    wanted = {file.path: file.blob.pk for file in files}
    if snapshot.revision is None:
        return found
    oldest: dict[str, int] = {}
    start, total = 1, 2
    while wanted and start < total:
        line, total = line_of(snapshot.revision, start=start, size=LINE_READ_AT_ONCE)
        contents: dict[int, dict[str, int]] = {}
        rows = RevisionFile.objects.filter(revision__in=line, path__in=wanted)
        for revision, path, blob in rows.values_list("revision_id", "path", "blob_id"):
            contents.setdefault(revision, {})[path] = blob
        for older in line:
            there = contents.get(older, {})
            wanted = {path: blob for path, blob in wanted.items() if there.get(path) == blob}
            oldest |= dict.fromkeys(wanted, older)
        start += LINE_READ_AT_ONCE
    made = Revision.objects.defer("facts", "warnings").select_related("author").in_bulk(set(oldest.values()))
    return found | {path: snapshot.repository.snapshot_of(made[pk]) for path, pk in oldest.items()}
