"""Model cards: README.md with YAML front matter, shown as sanitised HTML.

The text goes through CommonMark and then through a sanitiser; pictures of other hosts are not loaded, because they
would tell those hosts who reads which card.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Problem
from registry.filenames import CARD, show

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.token import Token

MAX_CARD_BYTES = 256 * 1024
MAX_FRONT_MATTER_BYTES = 16 * 1024
MAX_DEPTH = 16
# CommonMark's own nesting is what makes hostile cards slow.
_MAX_NESTING = 20
_FENCE = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
# An address as people write it in a text, and what at its end is the sentence's rather than its own.
_ADDRESS = re.compile(r"\bhttps?://[^\W_][^\s<>\"]{0,2000}")
_SENTENCE_ENDS = ".,:;!?*_~'"
# A point of a task list, once it is HTML: "- [x] trained".
_TASK = re.compile(r"(<li>\s*(?:<p>)?)\[([ xX])\] ")
_TAGS = {
    "a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1",
    "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "q", "s", "small", "span", "strong",
    "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title"},
    "code": {"class"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
}


@dataclass
class Card:
    """A card's facts, JSON-ready, and its text as HTML that is safe to show."""

    front_matter: dict[str, Any] = field(default_factory=dict)
    html: str = ""


class CardRefused(Exception):
    def __init__(self, message: str, *, where: str = "", found: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(file=CARD, where=where, message=message, found=found, expected=expected)


def read_card(path: Path) -> str:
    """The text of the card at `path`. Raises CardRefused if it is too long or no UTF-8."""
    _check_size(path.stat().st_size)
    return decode_card(path.read_bytes())


def _check_size(size: int) -> None:
    if size > MAX_CARD_BYTES:
        raise CardRefused(
            f"{CARD} is {size:,} bytes long; the limit is {MAX_CARD_BYTES:,}. Shorten it.",
            found=f"{size} bytes",
            expected=f"at most {MAX_CARD_BYTES} bytes",
        )


def decode_card(raw: bytes) -> str:
    """The card's text. Raises CardRefused if it is too long or no UTF-8."""
    _check_size(len(raw))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardRefused(
            f"{CARD} is not UTF-8 (byte {error.start}). Save it as UTF-8.",
            found="other bytes",
            expected="UTF-8",
        ) from None
    if "\x00" in text:
        raise CardRefused(f"{CARD} holds NUL characters. Remove them.", found="U+0000", expected="text")
    return text


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """(front matter, markdown) of a card. Raises CardRefused if the front matter breaks our rules."""
    match = _FENCE.match(text)
    if not match:
        return {}, text
    return _read_front_matter(match["yaml"]), text[match.end() :]


def _read_front_matter(text: str) -> dict[str, Any]:
    import yaml

    def refused(what: str, found: str, expected: str) -> CardRefused:
        return CardRefused(
            f"The front matter of {CARD} {what}.", where="front matter", found=found, expected=expected
        )

    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FRONT_MATTER_BYTES:
        raise refused(
            f"is {size:,} bytes long; the limit is {MAX_FRONT_MATTER_BYTES:,}",
            f"{size} bytes",
            f"at most {MAX_FRONT_MATTER_BYTES} bytes",
        )
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise refused(
                    "uses an anchor or alias (& or *). Write the value out", "an alias", "plain values"
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise refused(f"is nested deeper than {MAX_DEPTH} levels", "deep nesting", "flat values")
        # CSafeLoader makes plain values only; the linter does not know the C variant.
        value = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = show(str(error).splitlines()[0] if str(error) else type(error).__name__)[:120]
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 2})" if mark else ""  # counted from 0, behind the line of ---
        raise refused(f"is not valid YAML: {reason}{line}", reason, "YAML between two lines of ---") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused("must be a list of “key: value” lines", type(value).__name__, "key: value")
    return {str(key): _plain(child) for key, child in value.items()}


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: dates and odd keys become text."""
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(child) for child in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, float) and json.dumps(value) in ("NaN", "Infinity", "-Infinity"):
        return str(value)
    if isinstance(value, int) and abs(value) > 2**53:
        return str(value)
    if isinstance(value, str):
        return "".join(letter for letter in value if letter != "\x00" and not "\ud800" <= letter <= "\udfff")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return show(str(value))[:200]


def render_card(text: str, *, file_address: str = "") -> Card:
    """A card from its text. `file_address` is put before relative links and pictures, so that they find the files.

    Raises CardRefused if the front matter breaks our rules.
    """
    front_matter, markdown = split_card(text)
    return Card(front_matter=front_matter, html=render_markdown(markdown, file_address=file_address))


def render_markdown(text: str, *, file_address: str = "") -> str:
    """CommonMark (with tables, strikethrough, task lists and bare addresses) as HTML that is safe to show on our pages."""
    import nh3
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True, "maxNesting": _MAX_NESTING})
    parser.enable(["table", "strikethrough"]).core.ruler.push("addresses", _link_addresses)
    html = parser.render(text)

    def only_ours(element: str, attribute: str, value: str) -> str | None:
        if element == "code" and attribute == "class":
            return value if re.fullmatch(r"language-[\w+#-]{1,30}", value) else None
        if attribute not in ("href", "src"):
            return value
        if _is_relative(value):
            return file_address + value.removeprefix("./") if not value.startswith("#") else value
        return value if element == "a" else None

    safe: str = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=only_ours,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener nofollow ugc",
        # A block wider than the screen scrolls; with this it does so by keys as well.
        set_tag_attribute_values={"pre": {"tabindex": "0"}},
    )
    return _TASK.sub(lambda found: f"{found[1]}{'☐' if found[2] == ' ' else '☑'} ", safe)


def _link_addresses(state: StateCore) -> None:
    """Make links of the addresses that stand bare in a text. They pass the sanitiser like all others."""
    for block in state.tokens:
        children: list[Token] = []
        depth = 0  # inside of how many links
        for token in block.children or []:
            if token.type == "link_open" or (token.type == "html_inline" and token.content.startswith("<a")):
                depth += 1
            elif token.type == "link_close" or (
                token.type == "html_inline" and token.content.startswith("</a")
            ):
                depth -= 1
            children += _with_links(token, state.md) if token.type == "text" and depth <= 0 else [token]
        if block.children is not None:
            block.children = children


def _with_links(token: Token, parser: MarkdownIt) -> Iterator[Token]:
    """A piece of text cut at its addresses."""
    from markdown_it.token import Token

    done = 0
    for match in _ADDRESS.finditer(token.content):
        address = _without_sentence_end(match[0])
        href = parser.normalizeLink(address)
        if not parser.validateLink(href):
            continue
        yield Token("text", "", 0, content=token.content[done : match.start()])
        yield Token("link_open", "a", 1, attrs={"href": href})
        yield Token("text", "", 0, content=address)
        yield Token("link_close", "a", -1)
        done = match.start() + len(address)
    yield Token("text", "", 0, content=token.content[done:])


def _without_sentence_end(address: str) -> str:
    """An address without the stop behind it, or the bracket that was opened before it."""
    unopened = address.count(")") - address.count("(")
    end = len(address)
    while address[end - 1] in _SENTENCE_ENDS or (address[end - 1] == ")" and unopened > 0):
        unopened -= address[end - 1] == ")"
        end -= 1
    return address[:end]


def _is_relative(address: str) -> bool:
    """Whether an address stays on this adapter's own files: no scheme, no host, no way up."""
    plain = address.strip().replace("\\", "/")
    return (
        not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", plain) and not plain.startswith("/") and ".." not in plain
    )
