"""Static files under names with a hash, so that browsers keep them for ever."""

from __future__ import annotations

import logging
from functools import cache

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from whitenoise.storage import CompressedManifestStaticFilesStorage

logger = logging.getLogger(__name__)


class Forgiving:
    """A file that was not collected is named as it is: a page without its style says more than an error of ours.

    Django raises while it draws the page, and then again while it draws the page that says what went wrong.
    """

    def stored_name(self, name: str) -> str:
        try:
            return str(super().stored_name(name))  # type: ignore[misc]
        except ValueError:
            _complain(name)
            return name


class HashedFiles(Forgiving, ManifestStaticFilesStorage):  # type: ignore[misc]
    pass


class CompressedHashedFiles(Forgiving, CompressedManifestStaticFilesStorage):
    pass


@cache
def _complain(name: str) -> None:
    """Once for each file of a process."""
    logger.error("The static file %s was not collected; run manage.py collectstatic.", name)
