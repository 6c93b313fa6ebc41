from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "web"

    def ready(self) -> None:
        from web import api_schema  # noqa: F401 - registers how to sign in with drf-spectacular
