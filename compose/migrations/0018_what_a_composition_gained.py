from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("compose", "0017_time_searched_and_begun_scoring")]

    operations = [
        migrations.AddField(
            model_name="composition",
            name="gain",
            field=models.FloatField(
                blank=True,
                help_text="Its own score less its best baseline's, on as many held-out rows as a task has to hide.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="composition",
            index=models.Index(
                fields=["-gain", "created_at"],
                condition=models.Q(("gain__isnull", False)),
                name="composition_gained",
            ),
        ),
    ]
