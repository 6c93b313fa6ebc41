"""Base models whose modules wait to be compared with them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0028_import_overwrite")]
    operations = [
        migrations.AddField(
            model_name="basemodel",
            name="recheck_wanted_at",
            field=models.DateTimeField(
                blank=True,
                help_text="Since then the modules that name it wait to be compared with it.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="basemodel",
            name="rechecked_at",
            field=models.DateTimeField(blank=True, help_text="When they were compared last.", null=True),
        ),
    ]
