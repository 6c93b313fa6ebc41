"""Pushing an adapter to another Hub with the owner's own token there, as a recorded job.

The Hub's own client sends the files, so any Hub that it can write to will do. One commit holds all of them; sent again
after a worker was lost, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import F

from registry import hub_jobs, storage
from registry.details import check_text, check_visibility
from registry.models import Adapter, JobStatus, PushJob, Revision, RevisionFile, User
from registry.names import check_adapter_name, check_namespace_name
from registry.rights import require_change
from web.errors import DomainError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_OUR_ERROR = (
    "It stopped because of an error on our side. It has been logged; try again, and if it stops again tell the people "
    "who run this site its address."
)
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
    hub_jobs.require_room(owner)
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
    return list(revision.files.select_related("blob").order_by("path"))


# --- A worker's part ---------------------------------------------------------------------------------------------


def work(job: PushJob) -> None:
    """All of a claimed push: it is one step."""
    if getattr(job, "was_lost", False):
        hub_jobs.mine(job).update(losses=F("losses") + 1)
        job.losses += 1
    hub_jobs.run_guarded(job, lambda: _push(job), on_cancel=lambda: None, our_error=_OUR_ERROR)


def _push(job: PushJob) -> None:
    if job.losses >= settings.JOB_MAX_ATTEMPTS:
        raise PushFailed(_LOST.format(count=job.losses))
    from huggingface_hub import CommitOperationAdd, HfApi

    require_change(job.owner, job.adapter)
    hub = HfApi(endpoint=job.endpoint, token=hub_jobs.token_of(job), library_name="lora-commons")
    with _failures_in_words(job):
        _say(job, "repository")
        target = job.target if "/" in job.target else f"{hub.whoami()['name']}/{job.target}"
        hub.create_repo(target, private=job.visibility == Adapter.Visibility.PRIVATE, exist_ok=True)
        files = _files(job.revision)
        operations = [
            CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=str(storage.local_path(file.blob)))
            for file in files
        ]
        done = 0
        for file, operation in zip(files, operations, strict=True):
            _say(job, "sending", bytes_done=done)
            hub.preupload_lfs_files(target, [operation], free_memory=False)
            done += file.blob.size_bytes
        _say(job, "commit", bytes_done=done)
        commit = _commit(hub, target, operations, job)
    hub_jobs.mine(job).update(
        target=target, commit=commit, url=f"{job.endpoint}/{target}", stage="", bytes_done=done
    )
    hub_jobs.end(job, JobStatus.SUCCEEDED)


def _commit(hub: HfApi, target: str, operations: list[CommitOperationAdd], job: PushJob) -> str:
    message = f"Publish {job.adapter.full_name} at {job.revision.commit}"
    return str(hub.create_commit(target, operations, commit_message=message).oid)


def _say(job: PushJob, stage: str, **said: int) -> None:
    """How far it is. Raises CancelWanted, LeaseLost, Draining."""
    hub_jobs.look(job)
    hub_jobs.mine(job).update(stage=stage, **said)


@contextmanager
def _failures_in_words(job: PushJob) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise PushFailed(f"{job.endpoint} does not accept this token, or it may not write.") from None
        said = (error.server_message or "").strip()[:500]
        raise PushFailed(f"{job.endpoint} refuses: {said or f'status {status}'}") from None
    except errors.HFValidationError as error:
        raise PushFailed(f"{job.target} cannot be a name there.") from error
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise PushFailed(f"{job.endpoint} could not be reached or broke off. Try again later.") from error
