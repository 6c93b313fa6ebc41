from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import SET_NULL


class Migration(migrations.Migration):
    dependencies = [("registry", "0025_mail_of_what_is_new")]

    operations = [
        migrations.AddField(
            model_name="adapterscore",
            name="task_revision",
            field=models.ForeignKey(
                blank=True,
                help_text="Whose hidden rows it was computed on; what people report names none.",
                null=True,
                on_delete=SET_NULL,
                related_name="+",
                to="registry.taskrevision",
            ),
        ),
    ]
