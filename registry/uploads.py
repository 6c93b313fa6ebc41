"""Taking in multipart uploads: straight to disk, with the folder paths of the files, refused early when too large."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation, TooManyFilesSent
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser as DjangoMultiPartParser
from django.http.multipartparser import MultiPartParserError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import DataAndFiles, MultiPartParser

from registry import storage
from registry.errors import InspectionRefused, Problem
from registry.filenames import show
from web.errors import DomainError

logger = logging.getLogger(__name__)
FORM_ALLOWANCE_BYTES = 4 * 1024 * 1024  # boundaries and the text fields


class UploadTooLarge(DomainError, BadRequest):
    """Also a BadRequest: where Django itself reads a form, only that gets through to the error page."""

    code = "too_large"
    status = 413

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            f"{what} is larger than {limit:,} bytes, the most that is taken here. Nothing was kept.",
            fields={"files": [f"At most {limit:,} bytes."]},
        )


class BadUpload(DomainError):
    code = "bad_upload"


class UploadOnDisk(TemporaryUploadedFile):
    """Every file that is sent in a form: `path_in_folder` is the name as it was sent."""

    path_in_folder: str
    sha256: str

    def close(self) -> None:
        """What cannot be removed now is the sweep's. Raised, it would leave the request's other files unclosed."""
        try:
            super().close()
        except OSError as error:
            logger.warning("An uploaded file was not removed: %s", error)


class HashingUploadHandler(TemporaryFileUploadHandler):
    """Writes each file to UPLOAD_TMP_DIR while its sha256 is taken.

    Raises UploadTooLarge or StorageFull, before anything is read where the length says it.
    """

    # A reader that takes Django's 64 KiB has gunicorn copy all that it read ahead, up to a MiB, for each of them.
    chunk_size = storage.CHUNK_BYTES

    def handle_raw_input(
        self,
        input_data: Any,
        META: dict[str, Any],
        content_length: int,
        boundary: str,
        encoding: str | None = None,
    ) -> None:
        if content_length > settings.MAX_ADAPTER_BYTES + FORM_ALLOWANCE_BYTES:
            raise UploadTooLarge("The upload", settings.MAX_ADAPTER_BYTES)
        storage.require_free_space(content_length)

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        FileUploadHandler.new_file(self, field_name, "upload", *args, **kwargs)
        with storage.failures_in_words():
            self.file = UploadOnDisk("upload", self.content_type, 0, self.charset, self.content_type_extra)
        self.path_in_folder = file_name
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.size_bytes += len(raw_data)
        self.digest.update(raw_data)
        with self._whole_or_closed():
            if self.size_bytes > settings.MAX_FILE_BYTES:
                raise UploadTooLarge(show(self.path_in_folder)[:255], settings.MAX_FILE_BYTES)
            self.file.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile | None:
        with self._whole_or_closed():  # the last bytes of the buffer go to the disk here
            file = super().file_complete(file_size)
        assert isinstance(file, UploadOnDisk)
        file.name = file.path_in_folder = self.path_in_folder
        file.sha256 = self.digest.hexdigest()
        return file

    @contextmanager
    def _whole_or_closed(self) -> Iterator[None]:
        """Django closes the files that were complete; the one at hand is ours to close."""
        try:
            with storage.failures_in_words():
                yield
        except DomainError:
            self.file.close()
            raise


class _PathKeepingParser(DjangoMultiPartParser):
    """Django keeps a file name's last part only; a dropped folder's files are told apart by their paths.

    The names are checked by `registry.filenames` before anything is made of them.
    """

    def sanitize_file_name(self, file_name: str) -> str | None:
        return file_name or None


class UploadParser(MultiPartParser):
    """multipart/form-data for the API's uploads."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> DataAndFiles:
        assert parser_context is not None
        request = parser_context["request"]
        meta = {**request.META, "CONTENT_TYPE": media_type}
        try:
            parser = _PathKeepingParser(meta, stream, [HashingUploadHandler(request)], "utf-8")
            data, files = parser.parse()
        except TooManyFilesSent as error:
            raise BadUpload(
                f"The upload has more than {settings.DATA_UPLOAD_MAX_NUMBER_FILES} files. "
                "Upload only the adapter's own files.",
                fields={"files": ["Too many files."]},
            ) from error
        except SuspiciousOperation as error:
            raise BadUpload("The form's text fields are too many or too long.") from error
        except (MultiPartParserError, UnicodeError) as error:
            raise ParseError(f"The multipart form cannot be read: {error}") from error
        return DataAndFiles(data, files)


def collect(files: Iterable[UploadOnDisk]) -> dict[str, Path]:
    """Uploaded files by their names inside the adapter: a folder around all of them is taken off.

    Raises InspectionRefused if two have the same name.
    """
    named: dict[str, Path] = {}
    for file in files:
        name = file.path_in_folder
        if name in named:
            raise InspectionRefused(
                [
                    Problem(
                        file=show(name)[:255],
                        message=f"The upload has two files named “{show(name)[:255]}”. Send each file once.",
                        found="two",
                        expected="one",
                    )
                ]
            )
        named[name] = Path(file.temporary_file_path())
    return without_common_folder(named)


def without_common_folder(files: Mapping[str, Path]) -> dict[str, Path]:
    """`files` with the folders taken off that all of them lie in: `my-adapter/README.md` becomes `README.md`."""
    named = dict(files)
    while named:
        tops = {name.partition("/")[0] for name in named}
        if len(tops) != 1 or not all("/" in name for name in named) or tops & {"", ".", ".."}:
            break
        named = {name.partition("/")[2]: path for name, path in named.items()}
    return named
