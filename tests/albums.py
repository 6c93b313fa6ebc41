"""Pictures that a story leaves behind: `screenshots/<story>/`, and one page to flip through them all."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREENSHOTS = ROOT / "screenshots"
VIEWS: list[tuple[int, Any]] = [(1280, "light"), (768, "dark"), (390, "light")]


class Album:
    """The pictures of one story, numbered as they are taken."""

    def __init__(self, story: str) -> None:
        self.folder = SCREENSHOTS / story
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.count = 0

    def take(self, page: Page, title: str) -> None:
        """The whole page at each width, which has to hold it without scrolling sideways."""
        self.count += 1
        name = f"{self.count:02}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}"
        for width, scheme in VIEWS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=self.folder / f"{name}-{width}-{scheme}.png", full_page=True)
            found = page.evaluate("document.documentElement.scrollWidth")
            assert found <= width, f"{title}: {found} px wide at {width}"
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")
        write_index()


def write_index() -> None:
    """`screenshots/index.html`: every story in order, each moment at its widths side by side."""
    parts = ["<!doctype html><meta charset=utf-8><title>Stories</title>"]
    parts.append(
        "<style>body{font:15px system-ui;margin:24px}figure{display:inline-block;vertical-align:top;margin:0 12px 24px 0}"
        "img{max-height:700px;border:1px solid #ccc}h2{margin-top:40px}</style>"
    )
    for folder in sorted(path for path in SCREENSHOTS.iterdir() if path.is_dir()):
        parts.append(f"<h2>{html.escape(folder.name)}</h2>")
        for picture in sorted(folder.glob("*.png")):
            where = html.escape(f"{folder.name}/{picture.name}")
            parts.append(
                f'<figure><a href="{where}"><img src="{where}" loading=lazy></a><figcaption>{where}</figcaption></figure>'
            )
    Path(SCREENSHOTS / "index.html").write_text("\n".join(parts), encoding="utf-8")
