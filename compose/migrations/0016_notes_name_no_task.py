"""What is kept as a sentence leaves its task unnamed, which may be in quarantine when somebody reads it: what scores a
composition, and the description that a composed adapter got where its owner wrote none."""

import re

from django.db import migrations

NAMED = re.compile(r"hidden test rows of the task [\w-]+")
MADE = re.compile(r"Composed from [\d,]+ LoRA modules?")


def forwards(apps, schema_editor):
    Composition = apps.get_model("compose", "Composition")
    named = Composition.objects.filter(split_note__contains="hidden test rows of the task ")
    for composition in named.only("split_note").iterator():
        composition.split_note = NAMED.sub("hidden test rows of its task", composition.split_note)
        composition.save(update_fields=["split_note"])
    made = Composition.objects.filter(adapter__description__startswith="Composed from ", task__isnull=False)
    for composition in made.select_related("adapter", "task").only("adapter", "task").iterator():
        sentence, _, title = composition.adapter.description.partition(": ")
        if MADE.fullmatch(sentence) and title and composition.task.title.startswith(title):
            composition.adapter.description = sentence
            composition.adapter.save(update_fields=["description"])


class Migration(migrations.Migration):
    dependencies = [
        ("compose", "0015_task_revisions_of_scores"),
        ("registry", "0027_adapter_renewed_at"),
    ]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
