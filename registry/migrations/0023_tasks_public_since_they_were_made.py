"""Tasks that everybody sees have been public since they were made, as far as anybody wrote down."""

from django.db import migrations
from django.db.models import F


def write_first_public_at(apps, schema_editor):
    Task = apps.get_model("registry", "Task")
    Task.objects.filter(is_private=False, first_public_at=None).update(first_public_at=F("created_at"))


class Migration(migrations.Migration):
    dependencies = [("registry", "0022_task_first_public_at")]
    operations = [migrations.RunPython(write_first_public_at, migrations.RunPython.noop)]
