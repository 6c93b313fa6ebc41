"""Scores that were computed here name the task's revision that their composition was scored on."""

from django.db import migrations
from django.db.models import OuterRef, Subquery


def forwards(apps, schema_editor):
    Composition = apps.get_model("compose", "Composition")
    AdapterScore = apps.get_model("registry", "AdapterScore")
    composed = Composition.objects.filter(adapter=OuterRef("adapter"), task=OuterRef("task"))
    computed = AdapterScore.objects.filter(source="verified", task_revision=None)
    computed.update(task_revision=Subquery(composed.values("task_revision")[:1]))


class Migration(migrations.Migration):
    dependencies = [
        ("compose", "0014_what_steps_count"),
        ("registry", "0026_task_revision_of_a_score"),
    ]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
