"""The demo collection into the registry, by the same doors as everybody's: `manage.py load_demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry.accounts import create_account
from registry.base_models import host_base_model
from registry.models import Adapter, BaseModel, Membership, Namespace, Revision, Task, User
from registry.publishing import publish
from registry.storage import digest
from registry.task_sets import save_task

AUTHOR = "lora-commons"


class Command(BaseCommand):
    help = (
        "Publish the demo collection: base models, modules and held-out tasks. Harmless and quick to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--folder", type=Path, default=settings.ROOT / "demo")

    def handle(self, *, folder: Path, **options: Any) -> None:
        path = folder / "collection.json"
        if not path.exists():
            raise CommandError(f"{path} is missing. Build the collection first: python -m demo.build")
        collection = json.loads(path.read_text(encoding="utf-8"))
        author = User.objects.filter(username=AUTHOR).first() or create_account(
            username=AUTHOR, password=None
        )
        for entry in collection["base_models"]:
            _, is_new = host_base_model(
                name=entry["id"], folder=folder / entry["path"], license=entry.get("license", "")
            )
            self.stdout.write(f"{entry['id']}: {'loaded' if is_new else 'as it was'}")
        tasks = {slug: _load_task(folder / "tasks" / f"{slug}.json") for slug in collection["tasks"]}
        self.stdout.write(f"{len(tasks)} tasks")
        published = sum(_load_module(entry, folder, author, tasks) for entry in collection["modules"])
        self.stdout.write(f"{len(collection['modules'])} modules, {published} of them new")


def _load_task(path: Path) -> Task:
    task = json.loads(path.read_text(encoding="utf-8"))
    return save_task(
        slug=task["slug"],
        title=task["title"],
        description=task.get("description", ""),
        base_model=BaseModel.objects.named(task["base_model"]),
        metric=task.get("metric", "exact_match"),
        tags=[task[key] for key in ("function", "form") if task.get(key)],
        few_shot=task.get("few_shot", []),
        test=task.get("test", []),
        is_held_out=task.get("held_out", True),
    )


def _load_module(entry: dict[str, Any], folder: Path, author: User, tasks: dict[str, Task]) -> bool:
    """Publish one module unless its newest revision holds the same files; whether it was published."""
    namespace = _organisation(entry["namespace"], author)
    place = folder / entry["path"]
    files = {path.relative_to(place).as_posix(): path for path in sorted(place.rglob("*")) if path.is_file()}
    adapter = Adapter.objects.filter(namespace=namespace, name=entry["name"]).select_related("head").first()
    if adapter is not None and (adapter.deleted_at or _holds(adapter.head, files)):
        return False
    publish(
        author=author,
        namespace=namespace,
        name=entry["name"],
        files=files,
        description=entry.get("description", ""),
        task=tasks.get(entry.get("task", "")),
        task_title=entry.get("title", ""),
        base_model=entry["base_model"],
        license=entry.get("license", ""),
        tags=entry.get("tags", ()),
        message="Publish the demo collection",
    )
    return True


def _holds(revision: Revision | None, files: dict[str, Path]) -> bool:
    if revision is None:
        return False
    held = dict(revision.files.values_list("path", "blob__sha256"))
    return held == {path: digest(file).sha256 for path, file in files.items()}


def _organisation(name: str, member: User) -> Namespace:
    namespace, is_new = Namespace.objects.get_or_create(
        name=name,
        defaults={"kind": Namespace.Kind.ORGANISATION, "full_name": name.replace("-", " ").capitalize()},
    )
    if is_new:
        Membership.objects.create(namespace=namespace, user=member, role=Membership.Role.WRITE)
    return namespace
