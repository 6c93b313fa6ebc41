"""The tags of every adapter in its search row, to narrow a list by."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0029_base_model_recheck")]
    operations = [
        migrations.AddField(
            model_name="searchrow",
            name="tag",
            field=models.TextField(blank=True, db_default="", help_text="Its tags, as a,b."),
        ),
    ]
