"""Imports as jobs: what somebody asks for, worked off one repository at a time, each with its own outcome."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db.models import Count, F

from registry import hub_jobs, importing
from registry.details import check_text, check_visibility
from registry.importing import Progress
from registry.models import Adapter, ImportItem, ImportJob, JobStatus, Namespace, User
from registry.names import check_adapter_name
from registry.other_hubs import HubSilent, OtherHub, listed_endpoint
from web.errors import DomainError

PROGRESS_EVERY_S = 0.5
MAX_REPOSITORY_S = 6 * 3600
_LOST = (
    "The worker was lost {count} times while it worked on this, so it was left out. Perhaps the files are too large for "
    "this server; tell the people who run it."
)
Status = ImportItem.Status
_OPEN = (Status.WAITING, Status.FETCHING)


def request_import(
    *,
    owner: User,
    namespace: Namespace,
    sources: Sequence[str],
    name: str = "",
    revision: str = "",
    endpoint: str = "",
    visibility: str = Adapter.Visibility.PUBLIC,
    overwrite: bool = False,
    token: str = "",
) -> ImportJob:
    """Queue an import. `sources` are ids and patterns such as `lorahub/flan_t5_large-*`; the doors have checked that the
    owner may publish in `namespace`, and publishing checks it again.

    `overwrite`: newer commits may become the newest version on top of what was made here since. `token` is the owner's own
    for the other Hub; it is kept sealed until the job ends. Raises ImportFailed, ChangedHere, InvalidName, BadDetail,
    TooManyJobs; then nothing is saved.
    """
    sources = importing.check_sources(sources)
    if name:
        check_adapter_name(name)
        if len(sources) > 1 or importing.is_pattern(sources[0]):
            raise importing.ImportFailed(
                "A name of your own goes with one repository. Import these under the names that they have.",
                fields={"name": ["Only for a single repository."]},
            )
    if not overwrite:
        importing.require_unchanged(namespace=namespace, sources=sources, endpoint=endpoint, name=name)
    job = ImportJob(
        owner=owner,
        endpoint=listed_endpoint(endpoint),
        namespace=namespace,
        sources=list(sources),
        name=name,
        source_revision=check_text("revision", revision, limit=255),
        visibility=check_visibility(visibility),
        overwrite=overwrite,
    )
    check_text("token", token, limit=1000)
    hub_jobs.start(job, token)
    return job


def cancel(job: ImportJob) -> None:
    """End an import; what it has imported stays. Raises AlreadyEnded."""
    hub_jobs.cancel(job)
    if job.status == JobStatus.CANCELLED:
        _cancel_items(job)


def counts(job: ImportJob) -> dict[str, int]:
    """How many of its repositories are in each state, by the state's name; and `total`."""
    return counts_of([job])[job.pk]


def counts_of(jobs: Iterable[ImportJob]) -> dict[str, dict[str, int]]:
    """`counts` of several imports by their id, in one query."""
    found = {job.pk: dict.fromkeys(Status.values, 0) for job in jobs}
    rows = ImportItem.objects.filter(job__in=list(found)).order_by().values_list("job", "status")
    for job_id, status, number in rows.annotate(rows=Count("pk")):
        found[job_id][status] = number
    return {job_id: {**states, "total": sum(states.values())} for job_id, states in found.items()}


# --- A worker's part ---------------------------------------------------------------------------------------------


def work(job: ImportJob) -> None:
    """One step of a claimed import: find out what it means, or import one repository, or end it."""
    hub_jobs.run_guarded(job, lambda: _step(job), on_cancel=lambda: _cancel_items(job))


def _step(job: ImportJob) -> None:
    if not job.is_expanded:
        _expand(job)
        return
    item = job.items.filter(status__in=_OPEN).order_by("position").first()
    if item is None:
        _end(job)
    else:
        _import(job, item)


def _expand(job: ImportJob) -> None:
    """Write down which repositories are meant."""
    found = importing.find_sources(job.sources, endpoint=job.endpoint, token=hub_jobs.token_of(job))
    rows = [ImportItem(job=job, position=place, source=source) for place, source in enumerate(found)]
    # Another hold may have written them before it was lost.
    ImportItem.objects.bulk_create(rows, ignore_conflicts=True)
    hub_jobs.mine(job).update(is_expanded=True)


def _import(job: ImportJob, item: ImportItem) -> None:
    """Import one repository and keep what became of it. Raises CancelWanted, LeaseLost, Draining."""
    if item.attempts >= settings.JOB_MAX_ATTEMPTS:
        _close(item, Status.FAILED, error=_LOST.format(count=item.attempts))
        return
    ImportItem.objects.filter(pk=item.pk).update(status=Status.FETCHING, attempts=F("attempts") + 1)
    try:
        done = importing.import_adapter(
            actor=job.owner,
            namespace=job.namespace,
            source=item.source,
            name=job.name,
            revision=job.source_revision,
            endpoint=job.endpoint,
            token=hub_jobs.token_of(job),
            visibility=job.visibility,
            overwrite=job.overwrite,  # what was made here since it was asked is covered by nothing silently either
            on_progress=_Reporter(job, item).report,
        )
    except hub_jobs.TokenGone:
        raise
    except DomainError as error:
        _close(item, Status.FAILED, error=_in_one_text(error))
        if isinstance(error, HubSilent):
            _leave_the_rest(job)
    except hub_jobs.Draining:
        ImportItem.objects.filter(pk=item.pk).update(status=Status.WAITING, attempts=F("attempts") - 1)
        raise
    else:
        _close(
            item,
            Status.IMPORTED if done.is_new else Status.PRESENT,
            commit=done.commit,
            adapter=done.adapter,
            fetched_bytes=done.fetched_bytes,
            bytes_done=F("bytes_total"),
        )


def _leave_the_rest(job: ImportJob) -> None:
    """Where the other Hub is away, a thousand repositories are not waited for one by one."""
    with OtherHub(job.endpoint) as hub:
        if hub.answers():
            return
    rest = job.items.filter(status__in=_OPEN)
    rest.update(status=Status.FAILED, error=f"{job.endpoint} did not answer, so this was not tried.")


class _Reporter:
    """Writes down how far a repository is, now and then, and stops where the owner or this worker's end wants it."""

    def __init__(self, job: ImportJob, item: ImportItem) -> None:
        self.job, self.item = job, item
        self.begun = time.monotonic()
        self.written = 0.0

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.written < PROGRESS_EVERY_S:
            return
        self.written = now
        hub_jobs.look(self.job)
        if now - self.begun > MAX_REPOSITORY_S:
            raise importing.ImportFailed(
                f"It took longer than {MAX_REPOSITORY_S // 3600} hours and was stopped. What came is kept for a day; "
                "import it again to go on."
            )
        ImportItem.objects.filter(pk=self.item.pk).update(
            commit=progress.commit, bytes_done=progress.bytes_done, bytes_total=progress.bytes_total
        )


def _close(item: ImportItem, status: str, **said: object) -> None:
    ImportItem.objects.filter(pk=item.pk).update(status=status, **said)


def _end(job: ImportJob) -> None:
    found = counts(job)
    came = found[Status.IMPORTED] + found[Status.PRESENT]
    if not found[Status.FAILED]:
        hub_jobs.end(job, JobStatus.SUCCEEDED)
    elif came:
        hub_jobs.end(
            job, JobStatus.SUCCEEDED, f"{found[Status.FAILED]} of {found['total']} could not be imported."
        )
    else:
        first = job.items.filter(status=Status.FAILED).order_by("position").first()
        only = first.error if first is not None and found["total"] == 1 else "None of them could be imported."
        hub_jobs.end(job, JobStatus.FAILED, only)


def _cancel_items(job: ImportJob) -> None:
    job.items.filter(status__in=_OPEN).update(status=Status.CANCELLED)


def _in_one_text(error: DomainError) -> str:
    """Every problem of a refused adapter, one a line."""
    problems = getattr(error, "problems", None)
    return "\n".join(problem.message for problem in problems[:10]) if problems else error.message
