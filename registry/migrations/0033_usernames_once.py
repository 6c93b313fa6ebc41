"""A user name is one person's in whichever capitals. It was kept so by every door but a shell."""

from shlex import quote
from typing import Any

from django.core.management import CommandError
from django.db import migrations, models
from django.db.models.functions import Lower


def refuse_twins(apps: Any, schema_editor: Any) -> None:
    """Say which accounts stand in the way, instead of an error of the database's."""
    people = apps.get_model("registry", "User").objects.annotate(lower=Lower("username")).order_by("pk")
    shared = people.order_by("lower").values("lower").annotate(n=models.Count("pk")).filter(n__gt=1)
    namespaces = apps.get_model("registry", "Namespace").objects.filter(kind="user")
    commands = []
    for lower in shared.values_list("lower", flat=True):
        twins = list(people.filter(lower=lower))
        of_them = namespaces.alias(lower=Lower("name")).filter(lower=lower, memberships__user__in=twins)
        keeper = of_them.values_list("memberships__user", flat=True).first() or twins[0].pk
        commands += [f"manage.py rename_account {quote(twin.username)} NEW_NAME" for twin in twins if twin.pk != keeper]
    if commands:
        raise CommandError(
            "Several accounts have one name, in other capitals; a name is one person's from this version on. "
            "Give these another name, then begin again:\n  " + "\n  ".join(commands)
        )


class Migration(migrations.Migration):
    dependencies = [("registry", "0032_what_people_say_of_themselves")]
    operations = [
        migrations.RunPython(refuse_twins, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.UniqueConstraint(Lower("username"), name="username_once"),
        ),
    ]
