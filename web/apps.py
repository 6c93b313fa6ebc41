from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "web"

    def ready(self) -> None:
        from django.db.models import CharField, EmailField
        from django.db.models.lookups import IExact

        from web import api_schema  # noqa: F401 - registers how to sign in with drf-spectacular
        from web.lookups import CaselessExact

        CharField.register_lookup(CaselessExact)
        EmailField.register_lookup(IExact)  # allauth has indexes of its own for addresses
