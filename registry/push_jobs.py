"""Pushing an adapter to another Hub with the owner's own token there, as a recorded job.

The Hub's own client sends the files (`registry.pushing`), so any Hub that it can write to will do. One commit holds all of
them; sent again after a worker was lost, it changes nothing.
"""

from __future__ import annotations

from contextlib import closing

from django.conf import settings
from django.db.models import F

from registry import hub_jobs, pushing, storage
from registry.details import check_text, check_visibility
from registry.models import Adapter, JobStatus, PushJob, Revision, RevisionFile, User
from registry.names import check_adapter_name, check_namespace_name
from registry.rights import require_change
from web.errors import DomainError
from web.templatetags.formatting import duration

# The other Hub may take so long in all, and as long again as the bytes take at this rate.
PATIENCE_S = 600.0
SLOWEST_BYTES_S = 100_000
_LOST = "The worker was lost {count} times while it sent the files. Tell the people who run this site."


class PushFailed(DomainError):
    code = "push_failed"


def request_push(
    *,
    owner: User,
    adapter: Adapter,
    revision: Revision,
    token: str,
    target: str = "",
    endpoint: str = "",
    visibility: str = "",
) -> PushJob:
    """Queue sending this revision to another Hub as `target` (namespace/name; the token's owner's own name unless given).

    There it is as visible as here unless said otherwise. `token` is kept sealed until the job ends. Raises Forbidden,
    PushFailed, InvalidName, BadDetail, TooManyJobs; then nothing is saved.
    """
    require_change(owner, adapter)
    token = check_text("token", token, limit=1000)
    if not token:
        raise PushFailed(
            "Give your own token for the other Hub, one that may write.", fields={"token": ["Needed."]}
        )
    if revision.fact("rank") is None:
        raise PushFailed(f"{adapter.full_name} is not complete: there is no adapter in this version yet.")
    job = PushJob(
        owner=owner,
        endpoint=listed_endpoint(endpoint),
        adapter=adapter,
        revision=revision,
        target=_checked_target(target.strip() or adapter.name),
        visibility=check_visibility(visibility or adapter.visibility),
        bytes_total=sum(file.blob.size_bytes for file in _files(revision)),
    )
    hub_jobs.start(job, token)
    return job


def listed_endpoint(given: str) -> str:
    """The listed Hub that is meant; the first for "". Raises PushFailed."""
    allowed = settings.PUSH_ENDPOINTS
    endpoint = (given or allowed[0]).strip().rstrip("/")
    if endpoint not in allowed:
        raise PushFailed(f"Adapters are pushed to {', '.join(allowed)} only, not to {endpoint[:100]!r}.")
    return str(endpoint)


def _checked_target(target: str) -> str:
    namespace, slash, name = target.rpartition("/")
    check_adapter_name(name)
    if slash:
        check_namespace_name(namespace)
    return target


def _files(revision: Revision) -> list[RevisionFile]:
    return revision.files_by_path()


# --- A worker's part ---------------------------------------------------------------------------------------------


def work(job: PushJob) -> None:
    """All of a claimed push: it is one step."""
    if getattr(job, "was_lost", False):
        hub_jobs.mine(job).update(losses=F("losses") + 1)
        job.losses += 1
    hub_jobs.run_guarded(job, lambda: _push(job), on_cancel=lambda: None)


def _push(job: PushJob) -> None:
    if job.losses >= settings.JOB_MAX_ATTEMPTS:
        raise PushFailed(_LOST.format(count=job.losses))
    require_change(job.owner, job.adapter)
    files = _files(job.revision)
    if job.adapter.deleted_at is not None or not files:
        raise PushFailed(f"{job.adapter.full_name} was deleted meanwhile, so there is nothing to send.")
    wanted = pushing.Push(
        endpoint=job.endpoint,
        token=hub_jobs.token_of(job),
        target=job.target,
        is_private=job.visibility == Adapter.Visibility.PRIVATE,
        message=f"Publish {job.adapter.full_name} at {job.revision.commit}",
        files=[(file.path, str(storage.local_path(file.blob)), file.blob.size_bytes) for file in files],
        limit_s=PATIENCE_S + job.bytes_total / SLOWEST_BYTES_S,
    )
    try:
        with closing(pushing.run(wanted, look=lambda: hub_jobs.look(job))) as lines:
            for line in lines:
                _note(job, line)
    except pushing.TookTooLong as error:
        raise PushFailed(
            f"{job.endpoint} took longer than {duration(wanted.limit_s)} for it, so it was stopped. Try again later."
        ) from error


def _note(job: PushJob, line: pushing.Line) -> None:
    """Write down what the process says. Raises PushFailed, and CancelWanted, LeaseLost or Draining before a next stage."""
    match line:
        case {"refused": sentence}:
            raise PushFailed(sentence)
        case {"target": target}:
            job.target = target
            hub_jobs.mine(job).update(target=target)
        case {"commit": commit}:
            hub_jobs.mine(job).update(commit=commit, url=f"{job.endpoint}/{job.target}", stage="")
            hub_jobs.end(job, JobStatus.SUCCEEDED)
        case {"stage": _}:
            hub_jobs.look(job)
            hub_jobs.mine(job).update(**line)
