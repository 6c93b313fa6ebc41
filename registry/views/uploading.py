"""The upload page: files in, a published adapter or sentences out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST

from registry import early_check, filenames, publishing
from registry.errors import InspectionRefused, Problem
from registry.forms import UploadForm
from registry.models import Adapter
from registry.rights import writable_adapter, writable_namespace
from registry.uploads import HashingUploadHandler, UploadOnDisk, collect
from registry.views.offered import names_offered
from registry.views.people import signed_in
from web.errors import DomainError
from web.refusals import show_refusal
from web.typed_by import require_own


@csrf_exempt  # checked in _upload: the check reads the form, and the handler must be there before
@login_required
def upload(request: HttpRequest) -> HttpResponse:
    """The form, and what it sends: to a script as JSON, to a browser without one as a page."""
    request.upload_handlers = [HashingUploadHandler(request)]
    try:
        return _upload(request)
    except DomainError as error:
        if not _wants_json(request):
            raise
        return JsonResponse(_problem_answer([Problem(file="", message=error.message)]), status=error.status)


@csrf_protect
def _upload(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        form = UploadForm(user=signed_in(request), initial=_asked_for(request))
        return render(request, "registry/upload.html", _context(request, form))
    require_own(request)
    form = UploadForm(request.POST, user=signed_in(request))
    problems: list[Problem] = []
    if form.is_valid():
        try:
            adapter, done = _publish(request, form.cleaned_data)
        except InspectionRefused as error:
            problems = error.problems
        except DomainError as error:
            show_refusal(form, error)
        else:
            messages.success(request, done)
            if _wants_json(request):
                return JsonResponse({"url": adapter.get_absolute_url()}, status=201)
            return redirect(adapter)
    if _wants_json(request):
        return JsonResponse(_refusal(form, problems), status=400)
    return render(request, "registry/upload.html", _context(request, form, problems), status=400)


@login_required
@require_POST
def upload_check(request: HttpRequest) -> JsonResponse:
    """What publishing would say, from the small parts of the files that the page sends before all of them."""
    sent = {name: _beginning(request, name) for name in ("config", "header", "card")}
    weights_size = request.POST.get("weights_size", "0")
    if not (weights_size.isascii() and weights_size.isdigit() and len(weights_size) < 20):
        raise early_check.BadCheck("The size of the weight file is no number.")
    try:
        report = early_check.check_early(
            author=signed_in(request),
            config=sent["config"],
            header=sent["header"],
            card=sent["card"],
            weights_size=int(weights_size),
            weights_come_later=request.POST.get("weights") == "later",
            base_model=request.POST.get("base_model", ""),
        )
    except DomainError as error:
        return JsonResponse(_problem_answer([Problem(file="", message=error.message)]))
    return JsonResponse(
        {
            "problems": report.problems,
            "warnings": report.warnings,
            "facts": report.facts,
            "is_composable": report.is_composable,
            "composable_reason": report.composable_reason,
            "base_model": report.base_model.name if report.base_model else "",
            "base_model_label": report.base_model_label,
            "base_fit": report.base_fit,
            "composes_with": report.composes_with,
            "defaults": report.defaults,
        }
    )


def _beginning(request: HttpRequest, name: str) -> bytes:
    """As much of a file as an early check can use; nothing if it was not sent."""
    file = request.FILES.get(name)
    return file.read(early_check.MAX_HEADER_BYTES + 1) if isinstance(file, UploadedFile) else b""


def _publish(request: HttpRequest, data: dict[str, Any]) -> tuple[Adapter, str]:
    """The adapter, and the sentence that says what came of it."""
    namespace = writable_namespace(request.user, data["namespace"])
    before = publishing.find_by_name(namespace, data["name"].strip())
    # The form comes with "public" chosen. A new version of what is private must not show it for that.
    stays_private = before is not None and before.is_private
    with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="page-") as folder:
        files = _files(request)
        if data["card"].strip() and filenames.CARD not in files:
            card = Path(folder) / filenames.CARD
            card.write_text(data["card"].replace("\r\n", "\n"), encoding="utf-8")
            files[filenames.CARD] = card
        adapter = publishing.publish(
            author=signed_in(request),
            namespace=namespace,
            name=data["name"].strip(),
            files=files,
            description=data["description"],
            task_title=data["task"],
            base_model=data["base_model"],
            license=data["license"],
            visibility="" if stays_private else data["visibility"],
        )
    if before is None:
        return adapter, f"{adapter.full_name} is published."
    done = (
        f"{adapter.full_name} has these very files already; there is no new version."
        if adapter.head_id == before.head_id
        else f"{adapter.full_name} has a new version."
    )
    if stays_private and data["visibility"] == Adapter.Visibility.PUBLIC:
        done += " It is still private; its settings make it public."
    return adapter, done


def _files(request: HttpRequest) -> dict[str, Path]:
    """Name inside the adapter -> temporary file. `paths` names them when a script sent a folder. Raises InspectionRefused."""
    sent = cast("list[UploadOnDisk]", request.FILES.getlist("files"))
    paths = request.POST.getlist("paths")
    if len(paths) == len(sent):
        for file, path in zip(sent, paths, strict=True):
            file.path_in_folder = path or file.path_in_folder
    if not any(file.size for file in sent):
        message = "Choose the files of the adapter: adapter_config.json and adapter_model.safetensors."
        raise InspectionRefused([Problem(file="", message=message, found="no files")])
    return collect(sent)


def _asked_for(request: HttpRequest) -> dict[str, str]:
    """Fields that a link may set: `/upload?base_model=…&task=…`. With a namespace and a name of theirs, as it is seen now."""
    asked = {
        name: request.GET[name] for name in ("base_model", "task", "namespace", "name") if name in request.GET
    }
    if "namespace" in asked and "name" in asked:
        with suppress(DomainError):
            asked["visibility"] = writable_adapter(request.user, asked["namespace"], asked["name"]).visibility
    return asked


def _context(request: HttpRequest, form: UploadForm, problems: list[Problem] | None = None) -> dict[str, Any]:
    return {
        "form": form,
        "problems": problems or [],
        "problem_count": sum(problem.times for problem in problems or []),
        **names_offered(request.user),
        "max_bytes": settings.MAX_ADAPTER_BYTES,
        "max_files": settings.MAX_FILES_PER_ADAPTER,
        "kept_suffixes": " ".join(sorted(filenames.TEXT_SUFFIXES | set(filenames.PICTURE_MAGIC))),
        "kept_names": " ".join(sorted(filenames.TEXT_NAMES)),
        "max_early_bytes": early_check.MAX_HOLE_BYTES,
    }


def _wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("application/json")


def _refusal(form: UploadForm, problems: list[Problem]) -> dict[str, Any]:
    fields = {
        name: [str(error) for error in errors] for name, errors in form.errors.items() if name != "__all__"
    }
    general = [Problem(file="", message=str(message)) for message in form.non_field_errors()]
    return _problem_answer(general + problems, fields)


def _problem_answer(problems: list[Problem], fields: dict[str, list[str]] | None = None) -> dict[str, Any]:
    return {"problems": [problem.as_dict() for problem in problems], "fields": fields or {}}
