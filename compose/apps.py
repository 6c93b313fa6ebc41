from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.db.models import Exists, OuterRef, Q, QuerySet

from registry.filenames import MODULE_FILES
from web.database import take_for_deletion

if TYPE_CHECKING:
    from registry.models import Adapter, Namespace, Task, User


class ComposeConfig(AppConfig):
    name = "compose"

    def ready(self) -> None:
        from registry import accounts, publishing, task_sets, tombstones

        accounts.ON_BLOCK.append(_end_work_for)
        publishing.BEFORE_SHOWN.append(_require_nameable_parents)
        tombstones.STILL_NEEDED.append(_what_compositions_are_made_of)
        task_sets.ALSO_USED.append(_what_is_composed_for)
        task_sets.HOLD_USERS_OF.append(_hold_compositions_for)


def _end_work_for(person: User) -> None:
    from compose import blocking  # not at the top: models are not loaded yet

    blocking.end_work_for(person)


def _require_nameable_parents(adapter: Adapter, namespace: Namespace, visibility: str, actor: User) -> None:
    from compose.publishing import require_nameable_parents

    require_nameable_parents(adapter, namespace, visibility, actor)


def _what_is_composed_for() -> Q:
    from compose.models import Composition

    return Q(Exists(Composition.objects.filter(task=OuterRef("pk"))))


def _hold_compositions_for(tasks: QuerySet[Task]) -> None:
    from compose.models import Composition

    take_for_deletion(Composition.objects.filter(task__in=tasks))


def _what_compositions_are_made_of() -> Q:
    from compose.models import Candidate

    return Q(revision__in=Candidate.objects.values("revision"), path__in=MODULE_FILES)
