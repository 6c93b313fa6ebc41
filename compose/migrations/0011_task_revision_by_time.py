"""Compositions that were scored on a task's hidden rows name the revision that was the newest when they were asked for."""

from django.db import migrations
from django.db.models import OuterRef, Subquery


def forwards(apps, schema_editor):
    Composition = apps.get_model("compose", "Composition")
    TaskRevision = apps.get_model("registry", "TaskRevision")
    of_task = TaskRevision.objects.filter(task=OuterRef("task"))
    newest_then = of_task.filter(created_at__lte=OuterRef("created_at")).order_by("-number").values("pk")[:1]
    scored = Composition.objects.filter(has_hidden_test=True, task__isnull=False)
    # The first revision has no beginning: what is older belongs to it.
    scored.update(task_revision=Subquery(of_task.order_by("number").values("pk")[:1]))
    later = scored.filter(created_at__gte=Subquery(of_task.order_by("number").values("created_at")[:1]))
    later.update(task_revision=Subquery(newest_then))


class Migration(migrations.Migration):
    dependencies = [("compose", "0010_task_revision_of_a_composition")]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
