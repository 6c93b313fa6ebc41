"""What an import may cover, as it was asked."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0027_adapter_renewed_at")]
    operations = [
        migrations.AddField(
            model_name="importjob",
            name="overwrite",
            field=models.BooleanField(
                default=False, help_text="A newer commit may go on top of versions that were made here."
            ),
        ),
    ]
