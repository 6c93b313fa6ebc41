from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('registry', '0018_newest_tasks'),
    ]

    operations = [
        migrations.AddField(
            model_name='adapter',
            name='first_public_at',
            field=models.DateTimeField(blank=True, help_text='Since then it is new to everybody; being hidden for a while changes nothing.', null=True),
        ),
        migrations.RenameField(
            model_name='searchrow',
            old_name='created_us',
            new_name='published_us',
        ),
    ]
