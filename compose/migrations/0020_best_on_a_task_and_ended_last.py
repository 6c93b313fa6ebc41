from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("compose", "0019_gains_of_what_is_there")]

    operations = [
        migrations.AddField(
            model_name="composition",
            name="board_score",
            field=models.FloatField(
                blank=True,
                help_text="What its task's leaderboard ranks it by: its own score on all hidden rows, by the revision's metric.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="composition",
            index=models.Index(
                fields=["task_revision", "-board_score"],
                condition=models.Q(("board_score__isnull", False)),
                name="composition_best_on_task",
            ),
        ),
        migrations.AddIndex(
            model_name="composition",
            index=models.Index(fields=["-finished_at"], name="composition_ended"),
        ),
    ]
