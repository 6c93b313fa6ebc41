"""What people do in the browser again and again: sign in, and drop files on the upload page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "correct horse battery"
# Puts files under the pointer as a person does who drags a folder: DataTransfer has no entries for made-up files,
# so the paths come along as the page would have read them.
_DROP = """(files) => {
  const transfer = new DataTransfer();
  for (const [path, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], path));
  }
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def sign_in(page: Page, address: str, name: str, password: str = PASSWORD) -> None:
    """On the sign-in page of the site at `address`, and wait for the start page."""
    page.goto(f"{address}/accounts/login/")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", password)
    page.click("main button:has-text('Sign in')")
    page.wait_for_url(f"{address}/")


def drop(page: Page, folder: Path) -> None:
    """Drop every file of `folder` on the upload page."""
    files = [
        [path.relative_to(folder).as_posix(), base64.b64encode(path.read_bytes()).decode()]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    page.evaluate(_DROP, files)
