"""Judging an upload before its weights are sent: config, card and the header of the weight file are small.

The browser sends those; here they are laid out as a folder whose weight file has the real header, the real size
and nothing but a hole for the rest, so that the very rules of publishing speak, not a copy of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from registry import preparing
from registry.filenames import CARD, CONFIG, WEIGHTS
from registry.models import User
from web.errors import DomainError

# A hole still has to be read through; a larger file is judged once it has arrived.
MAX_HOLE_BYTES = 256 * 1024**2
MAX_HEADER_BYTES = 16 * 1024**2 + 8


class BadCheck(DomainError):
    code = "bad_check"


def check_early(
    *,
    author: User,
    config: bytes,
    header: bytes = b"",
    weights_size: int = 0,
    weights_come_later: bool = False,
    card: bytes = b"",
    base_model: str = "",
) -> preparing.Report:
    """What `publish` would say to files of which only these parts are known; nothing is kept.

    `header` is the beginning of the weight file up to its first tensor, `weights_size` the whole size in bytes.
    `weights_come_later`: there are weights, a pickle or too large a file, that cannot be judged from here.
    What only the values can tell (not finite, untrained) is not said. Raises BadCheck.
    """
    if not len(header) <= weights_size <= MAX_HOLE_BYTES or len(header) > MAX_HEADER_BYTES:
        raise BadCheck(
            "The size of the weight file and its header do not go together, or it is too large to be judged early."
        )
    with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="check-") as folder:
        files = _lay_out(Path(folder), {CONFIG: config, CARD: card, WEIGHTS: header})
        if WEIGHTS in files:
            os.truncate(files[WEIGHTS], weights_size)
        report = preparing.validate(author=author, files=files, base_model=base_model)
    problems = report.problems
    if weights_come_later:
        problems = [problem for problem in problems if problem["file"] != WEIGHTS]
    warnings = [text for text in report.warnings if not text.startswith("Untrained")]
    return replace(report, problems=problems, warnings=warnings)


def _lay_out(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """The contents that are not empty, as files in `folder`."""
    files = {name: folder / name for name, content in contents.items() if content}
    for name, path in files.items():
        path.write_bytes(contents[name])
    return files
