from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0015_tasks_that_people_make'),
    ]

    operations = [
        migrations.AddField(
            model_name='task',
            name='is_private',
            field=models.BooleanField(default=False, help_text='Only members of its namespace see it; `registry.search.tasks_shown_to` is the gate.'),
        ),
        migrations.AddConstraint(
            model_name='task',
            constraint=models.CheckConstraint(condition=models.Q(('is_private', False), ('owner__isnull', False), _connector='OR'), name='private_task_has_an_owner'),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(condition=models.Q(('is_private', True), ('quarantined_at__isnull', False), _connector='OR'), fields=['id'], name='task_hidden'),
        ),
    ]
