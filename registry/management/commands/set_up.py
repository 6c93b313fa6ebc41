"""What a new version needs before it can serve: schema, bucket, catalogue. Harmless to repeat."""

from __future__ import annotations

from typing import Any, cast

from botocore.exceptions import ClientError
from django.core.files.storage import storages
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import OperationalError
from storages.backends.s3 import S3Storage

ATTEMPTS = 5
DEADLOCK = "40P01"  # of Postgres


class Command(BaseCommand):
    help = "Bring the database, the bucket of the object store and the catalogue of base models up to date."

    def handle(self, **options: Any) -> None:
        self._migrate()
        if ensure_bucket():
            self.stdout.write("Made the bucket.")
        call_command("load_catalogue", stdout=self.stdout)

    def _migrate(self) -> None:
        """Beside whatever runs on: where a migration and somebody who writes wait for each other, Postgres may end the migration.

        Each is one transaction, so the next attempt goes on with the one that was ended.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                call_command("migrate", interactive=False, stdout=self.stdout)
                return
            except OperationalError as error:
                if attempt == ATTEMPTS or getattr(error.__cause__, "sqlstate", "") != DEADLOCK:
                    raise
                self.stdout.write("Others were writing to the same, and went first. Again.")


def ensure_bucket() -> bool:
    """Make the bucket for blobs where there is none; True if it was made. On disk there is nothing to make."""
    storage = storages["blobs"]
    if not isinstance(storage, S3Storage):
        return False
    client = storage.connection.meta.client
    try:
        client.head_bucket(Bucket=storage.bucket_name)
    except ClientError as error:
        if cast(Any, error.response)["Error"]["Code"] not in {"404", "NoSuchBucket"}:
            raise
        client.create_bucket(**_where(storage.bucket_name, client.meta.region_name))
        return True
    return False


def _where(bucket: str, region: str | None) -> dict[str, Any]:
    """AWS makes buckets in us-east-1 unless another region is named, and refuses that one's name."""
    if region in {None, "", "us-east-1", "aws-global"}:
        return {"Bucket": bucket}
    return {"Bucket": bucket, "CreateBucketConfiguration": {"LocationConstraint": region}}
