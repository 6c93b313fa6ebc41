"""Write down how many numbers the adapters that are here hold, as their facts say."""

from django.db import migrations


def write_parameters(apps, schema_editor):
    Adapter = apps.get_model("registry", "Adapter")
    waiting = Adapter.objects.filter(parameters=None, head__isnull=False).select_related("head")
    some = []
    for adapter in waiting.only("parameters", "head__facts").iterator(chunk_size=500):
        adapter.parameters = (adapter.head.facts or {}).get("parameters")
        some.append(adapter)
        if len(some) == 500:
            Adapter.objects.bulk_update(some, ["parameters"])
            some.clear()
    Adapter.objects.bulk_update(some, ["parameters"])


class Migration(migrations.Migration):
    dependencies = [("registry", "0010_what_it_was_trained_on")]
    operations = [migrations.RunPython(write_parameters, migrations.RunPython.noop)]
