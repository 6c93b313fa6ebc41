"""The gains of the compositions that are there, from their scores."""

from typing import Any

from django.conf import settings
from django.db import migrations, models

BATCH = 1000


def write_gains(apps: Any, schema_editor: Any) -> None:
    Composition, Score = apps.get_model("compose", "Composition"), apps.get_model("compose", "Score")
    of_its_own = models.Q(method=models.F("composition__method"))
    gained = (
        Score.objects.filter(
            composition__status="succeeded",
            split="held_out",
            metric=models.F("composition__metric"),
            n__gte=settings.MIN_TASK_HIDDEN_ROWS,
        )
        .order_by()
        .values("composition")
        .annotate(gain=models.Max("value", filter=of_its_own) - models.Max("value", filter=~of_its_own))
        .filter(gain__isnull=False)
        .values_list("composition", "gain")
    )
    rows = [Composition(pk=pk, gain=gain) for pk, gain in gained]
    Composition.objects.bulk_update(rows, ["gain"], batch_size=BATCH)


class Migration(migrations.Migration):
    dependencies = [("compose", "0018_what_a_composition_gained")]

    operations = [migrations.RunPython(write_gains, migrations.RunPython.noop, elidable=True)]
