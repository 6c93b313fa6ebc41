"""Which file names an upload may use, and which of its files are kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from registry.errors import Problem

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LEGACY_WEIGHTS = "adapter_model.bin"
CARD = "README.md"
MODULE_FILES = (CONFIG, WEIGHTS)  # all that is computed with
ADAPTER_FILES = frozenset({*MODULE_FILES, LEGACY_WEIGHTS, CARD})

MAX_FILES = 1_000
MAX_NAME_BYTES = 255
MAX_TEXT_BYTES = 1024 * 1024
MAX_PICTURE_BYTES = 5 * 1024 * 1024

TEXT_NAMES = frozenset({"license", "licence", "notice", "copying", "citation", "authors"})
TEXT_SUFFIXES = frozenset(
    {".md", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".csv", ".tsv", ".bib", ".cff", ".jinja"}
)
PICTURE_MAGIC = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".gif": (b"GIF87a", b"GIF89a"),
    ".webp": (b"RIFF",),
}
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
GIT_NAMES = frozenset({".gitattributes", ".gitignore"})
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


def check_names(names: Iterable[str]) -> list[Problem]:
    """Problems with the names of an upload's files, paths inside the adapter; none if all may be kept.

    A name is printable ASCII, relative, has no empty, `.` or `..` segment and no backslash, and is at most 255
    bytes; two names that a case-blind file system takes for one are refused.
    """
    names = list(names)
    if len(names) > MAX_FILES:
        return [
            Problem(
                file="",
                message=f"The upload has {len(names):,} files; at most {MAX_FILES:,} are read. "
                "Upload only the adapter's own files.",
                found=str(len(names)),
                expected=f"at most {MAX_FILES}",
            )
        ]
    problems = [problem for name in names if (problem := _check_name(name))]
    first_with: dict[str, str] = {}
    for name in names:
        folded = _fold(name)
        if folded in first_with:
            other = first_with[folded]
            problems.append(
                Problem(
                    file=show(name),
                    message=f"The names “{show(other)}” and “{show(name)}” are the same name on many systems. "
                    "Keep one of the two files.",
                    found=show(name),
                    expected="names that differ in more than case",
                )
            )
        first_with.setdefault(folded, name)
    return problems + _clashes(names)


def _clashes(names: list[str]) -> list[Problem]:
    """Names that are a file and also the folder of another file."""
    files = set(names)
    folders = {
        "/".join(parts[:end]) for name in names for parts in [name.split("/")] for end in range(1, len(parts))
    }
    return [
        Problem(
            file=show(name),
            message=f"“{show(name)}” is a file and also the folder of another file. Rename one of the two.",
            found="a file and a folder",
            expected="one of the two",
        )
        for name in sorted(files & folders)
    ]


def _check_name(name: str) -> Problem | None:
    shown = show(name)
    if not name:
        return Problem(file="", message="A file has an empty name. Give it a name.", expected="a name")
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > MAX_NAME_BYTES:
        return Problem(
            file=shown,
            message=f"The file name “{shown[:60]}…” is {size:,} bytes long; the limit is {MAX_NAME_BYTES}. Shorten it.",
            found=f"{size} bytes",
            expected=f"at most {MAX_NAME_BYTES} bytes",
        )
    odd = next((letter for letter in name if not " " <= letter <= "~"), None)
    if odd is not None:
        return Problem(
            file=shown,
            message=f"The file name “{shown}” holds the character U+{ord(odd):04X}. "
            "Use plain ASCII letters, digits and signs in file names.",
            found=f"U+{ord(odd):04X}",
            expected="printable ASCII",
        )
    if "\\" in name:
        return Problem(
            file=shown,
            message=f"The file name “{shown}” holds a backslash. Separate folders with “/”.",
            found="\\",
            expected="/",
        )
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return Problem(
            file=shown,
            message=f"The file name “{shown}” is absolute. Name files relative to the adapter's folder.",
            found=shown,
            expected="a relative name",
        )
    bad = next((part for part in name.split("/") if part in ("", ".", "..")), None)
    if bad is not None:
        described = f"the segment “{bad}”" if bad else "an empty segment"
        return Problem(
            file=shown,
            message=f"The file name “{shown}” has {described}. "
            "Name files plainly, relative to the adapter's folder.",
            found=bad or "an empty segment",
            expected="no empty, “.” or “..” segment",
        )
    if any(part.lower() == ".git" for part in name.split("/")):
        return Problem(
            file=shown,
            message=f"The file name “{shown}” lies in a “.git” folder. Leave git's own files out.",
            found=".git",
            expected="no “.git” segment",
        )
    return None


def _fold(name: str) -> str:
    """What a case-blind file system that drops trailing dots and spaces makes of `name`."""
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    parts = unicodedata.normalize("NFKC", visible).casefold().split("/")
    return "/".join(part.rstrip(". ") for part in parts if part not in ("", "."))


def show(text: str) -> str:
    """`text` with everything that would not print, or would reorder the line, written as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is the small text that Git LFS puts in a file's place."""
    if path.stat().st_size > 1024:
        return False
    with path.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def why_left_out(name: str, path: Path) -> str:
    """Why this extra file is not kept, as a sentence; empty if it is kept.

    Kept are small texts and small pictures whose bytes are what their names say.
    """
    if why := why_left_out_unread(name, path.stat().st_size):
        return why
    suffix = Path(name).suffix.lower()
    if is_lfs_pointer(path):
        return "It is a Git LFS pointer, not the file itself."
    return _why_no_picture(path, suffix) if suffix in PICTURE_MAGIC else _why_no_text(path)


def why_left_out_unread(name: str, size_bytes: int = 0) -> str:
    """Why an extra file is not kept, whatever its bytes, as a sentence; empty if they decide. 0 stands for any size."""
    suffix = Path(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return "It can hold code that runs when it is loaded; only safetensors weights are kept."
    if suffix == ".safetensors":
        return f"An adapter has one weight file, {WEIGHTS}."
    own = Path(name).name
    is_text = suffix in TEXT_SUFFIXES or own.lower().split(".")[0] in TEXT_NAMES or own in GIT_NAMES
    if suffix in PICTURE_MAGIC:
        is_large = size_bytes > MAX_PICTURE_BYTES
        return f"The picture is {size_bytes:,} bytes; the limit is {MAX_PICTURE_BYTES:,}." if is_large else ""
    if is_text:
        is_large = size_bytes > MAX_TEXT_BYTES
        return f"The text is {size_bytes:,} bytes; the limit is {MAX_TEXT_BYTES:,}." if is_large else ""
    return "Only texts, PNG, JPEG, GIF and WebP pictures are kept beside the adapter's own files."


def _why_no_picture(path: Path, suffix: str) -> str:
    with path.open("rb") as stream:
        start = stream.read(16)
    if not start.startswith(PICTURE_MAGIC[suffix]) or (suffix == ".webp" and start[8:12] != b"WEBP"):
        return f"Its bytes are not those of a {suffix[1:].upper()} picture."
    return ""


def _why_no_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "It is not UTF-8 text."
    return "It holds NUL characters, so it is no text." if "\x00" in text else ""


def sort_files(files: Mapping[str, Path]) -> tuple[list[str], list[dict[str, str]]]:
    """Names to keep, and `{"path", "why"}` of those to leave out. `adapter_model.bin` is neither: it is converted."""
    kept: list[str] = []
    left_out: list[dict[str, str]] = []
    for name, path in sorted(files.items()):
        if name == LEGACY_WEIGHTS:
            continue
        why = "" if name in ADAPTER_FILES else why_left_out(name, path)
        if why:
            left_out.append({"path": name, "why": why})
        else:
            kept.append(name)
    return kept, left_out
