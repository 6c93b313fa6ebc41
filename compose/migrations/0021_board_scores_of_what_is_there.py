"""What leaderboards rank the compositions that are there by, from their scores."""

from typing import Any

from django.db import migrations
from django.db.models import F

BATCH = 1000


def write_board_scores(apps: Any, schema_editor: Any) -> None:
    Composition, Score = apps.get_model("compose", "Composition"), apps.get_model("compose", "Score")
    TaskRevision = apps.get_model("registry", "TaskRevision")
    hidden = {pk: len(test) for pk, test in TaskRevision.objects.values_list("pk", "test").iterator()}
    own = Score.objects.filter(
        composition__status="succeeded",
        composition__has_hidden_test=True,
        method=F("composition__method"),
        split="held_out",
        metric=F("composition__task_revision__metric"),
    ).order_by()
    rows = [
        Composition(pk=pk, board_score=value)
        for pk, revision, value, n in own.values_list("composition", "composition__task_revision", "value", "n")
        if n == hidden[revision]
    ]
    Composition.objects.bulk_update(rows, ["board_score"], batch_size=BATCH)


class Migration(migrations.Migration):
    dependencies = [("compose", "0020_best_on_a_task_and_ended_last")]

    operations = [migrations.RunPython(write_board_scores, migrations.RunPython.noop, elidable=True)]
