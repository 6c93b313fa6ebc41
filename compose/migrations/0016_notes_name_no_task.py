"""What scores a composition is said without the name of its task, which may be in quarantine when somebody reads it."""

import re

from django.db import migrations

NAMED = re.compile(r"hidden test rows of the task [\w-]+")


def forwards(apps, schema_editor):
    Composition = apps.get_model("compose", "Composition")
    named = Composition.objects.filter(split_note__contains="hidden test rows of the task ")
    for composition in named.only("split_note").iterator():
        composition.split_note = NAMED.sub("hidden test rows of its task", composition.split_note)
        composition.save(update_fields=["split_note"])


class Migration(migrations.Migration):
    dependencies = [("compose", "0015_task_revisions_of_scores")]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
