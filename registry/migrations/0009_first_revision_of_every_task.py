"""The rows that tasks have now become their first revision."""

import hashlib
import json

from django.db import migrations


def forwards(apps, schema_editor):
    Task = apps.get_model("registry", "Task")
    TaskRevision = apps.get_model("registry", "TaskRevision")
    for task in Task.objects.filter(rows__isnull=False, revisions=None).distinct().iterator():
        rows = {
            split: list(task.rows.filter(split=split).order_by("position").values("input", "output"))
            for split in ("few_shot", "test")
        }
        # The same text as registry.task_sets hashes.
        said = json.dumps(
            [task.metric, rows["few_shot"], rows["test"]], sort_keys=True, separators=(",", ":")
        )
        TaskRevision.objects.create(
            task=task,
            number=1,
            sha256=hashlib.sha256(said.encode()).hexdigest(),
            metric=task.metric,
            few_shot=rows["few_shot"],
            test=rows["test"],
            created_at=task.created_at,
        )


class Migration(migrations.Migration):
    dependencies = [("registry", "0008_statistics_follows_webhooks_task_revisions")]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
