from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0021_adapters_by_publication'),
    ]

    operations = [
        migrations.AddField(
            model_name='task',
            name='first_public_at',
            field=models.DateTimeField(blank=True, help_text='Since then it is new to everybody.', null=True),
        ),
    ]
