"""After a change of SECRET_KEY: what is sealed in the database no longer needs the key of before."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from registry import sealing
from registry.models import ImportJob, PushJob, Webhook

SEALED = ((Webhook, "secret"), (ImportJob, "sealed_token"), (PushJob, "sealed_token"))


class Command(BaseCommand):
    help = (
        "Seal the secrets of webhooks, and tokens that imports and pushes wait with, by SECRET_KEY instead of by "
        "SECRET_KEY_FALLBACKS. Ends with 1 if some were sealed by a key that is in neither."
    )

    def handle(self, **options: Any) -> None:
        done = lost = 0
        for model, field in SEALED:
            for pk, sealed in model._default_manager.exclude(**{field: ""}).values_list("pk", field):
                anew = sealing.seal_anew(sealed)
                if anew is None:
                    lost += 1
                    self.stderr.write(f"{model.__name__} {pk}: sealed by a key that is not here.")
                    continue
                # Unless somebody has changed it meanwhile: then it is by the new key already.
                done += model._default_manager.filter(pk=pk, **{field: sealed}).update(**{field: anew})
        self.stdout.write(f"{done} secrets are sealed by SECRET_KEY now; {lost} could not be opened.")
        if lost:
            raise SystemExit(1)
