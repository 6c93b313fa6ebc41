"""When an adapter's newest version was new, so that the newest of a namespace are found by an index."""

import django.utils.timezone
from django.db import migrations, models
from django.db.models import F, Max, OuterRef, Subquery
from django.db.models.functions import Coalesce, Greatest


def write_renewed_at(apps, schema_editor):
    Adapter = apps.get_model("registry", "Adapter")
    Revision = apps.get_model("registry", "Revision")
    complete = Revision.objects.filter(adapter=OuterRef("pk")).exclude(facts={}).order_by()
    newest = Subquery(complete.values("adapter").annotate(at=Max("created_at")).values("at"))
    made = Coalesce(newest, F("created_at"))
    Adapter.objects.update(renewed_at=Greatest(made, Coalesce(F("first_public_at"), made)))


class Migration(migrations.Migration):
    dependencies = [("registry", "0026_task_revision_of_a_score")]
    operations = [
        migrations.AddField(
            model_name="adapter",
            name="renewed_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now,
                help_text="When its newest version was new: no version of it is newer than this.",
            ),
        ),
        migrations.RunPython(write_renewed_at, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(fields=["-renewed_at", "-id"], name="adapter_renewed"),
        ),
        migrations.AddIndex(
            model_name="adapter",
            index=models.Index(fields=["namespace", "-renewed_at", "-id"], name="adapter_renewed_in"),
        ),
    ]
