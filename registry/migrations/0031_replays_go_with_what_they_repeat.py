"""A delivery that repeats another goes with it. The database has nothing to change: Django deletes by what models say."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("registry", "0030_search_row_tag")]
    operations = [
        migrations.AlterField(
            model_name="delivery",
            name="replay_of",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="replays",
                to="registry.delivery",
            ),
        ),
    ]
