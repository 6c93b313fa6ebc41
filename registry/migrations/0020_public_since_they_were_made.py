"""Adapters that everybody sees have been public since they were made, as far as anybody wrote down."""

from django.db import migrations
from django.db.models import F


def write_first_public_at(apps, schema_editor):
    Adapter = apps.get_model("registry", "Adapter")
    Adapter.objects.filter(visibility="public", first_public_at=None).update(first_public_at=F("created_at"))


class Migration(migrations.Migration):
    dependencies = [("registry", "0019_adapter_first_public_at")]
    operations = [migrations.RunPython(write_first_public_at, migrations.RunPython.noop)]
