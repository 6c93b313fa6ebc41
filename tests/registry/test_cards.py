import time
from html.parser import HTMLParser

import pytest

from registry.cards import CardRefused, decode_card, render_card


def refusal(text: str) -> str:
    with pytest.raises(CardRefused) as caught:
        render_card(text)
    return str(caught.value)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, attrs))


def tags_of(html: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    parser = _Tags()
    parser.feed(html)
    return parser.found


def with_front_matter(yaml: str) -> str:
    return f"---\n{yaml}\n---\n# Title\n"


def test_a_card_is_split_into_facts_and_html():
    card = render_card("---\nlicense: mit\ndate: 2024-01-02\nn: 3\n---\n# Title\n\nSome **bold** text.\n")
    assert card.front_matter == {"license": "mit", "date": "2024-01-02", "n": 3}
    assert card.html == "<h1>Title</h1>\n<p>Some <strong>bold</strong> text.</p>\n"


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("a: &x 1\nb: *x", "anchor or alias"),
        ("a: [1", "not valid YAML"),
        ("a: 2024-13-45", "not valid YAML"),
        ("n: " + "9" * 5000, "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("- a\n- b", "key: value"),
        ("a: " + "x" * 17_000, "limit is 16,384"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper"),
    ],
)
def test_bad_front_matter_is_refused_in_words(yaml, words):
    assert words in refusal(with_front_matter(yaml))


def test_a_card_that_is_too_long_or_no_text_is_refused():
    for raw, words in (
        (b"x" * (256 * 1024 + 1), "limit is 262,144"),
        (b"\xff", "not UTF-8"),
        (b"a\x00", "NUL"),
    ):
        with pytest.raises(CardRefused, match=words):
            decode_card(raw)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "<a href='data:text/html,<script>1</script>'>x</a>",
        "<iframe src='https://example.org'></iframe>",
        "<svg onload=alert(1)>",
        "<style>body{display:none}</style>",
        "<form action='/x'><input name=a></form>",
        "<p style='position:fixed'>x</p>",
        "<math><mtext></p><style><a title='</style><img src=x onerror=alert(1)>'>",
        "![x](javascript:alert(1))",
    ],
)
def test_nothing_that_runs_survives(text):
    for tag, attributes in tags_of(render_card(text).html):
        assert tag in {"p", "a", "img", "h1"}
        assert {name for name, _ in attributes} <= {"href", "rel", "src", "alt", "title"}
        assert all(":" not in (value or "") for _, value in attributes)


@pytest.mark.parametrize(
    "address", ["https://example.org/x.png", "//example.org/x.png", "/private/x.png", "http:\\\\example.org/x.png",
                "../../other/x.png", "\\\\example.org\\x.png"]
)  # fmt: skip
def test_pictures_of_other_places_are_not_loaded(address):
    assert "example.org" not in render_card(f'<img src="{address}" alt="a">').html
    assert "src=" not in render_card(f'<img src="{address}" alt="a">').html


def test_pictures_of_the_adapter_itself_are_shown():
    html = render_card("![loss](./plots/loss.png)", file_address="/ada/first/resolve/main/").html
    assert 'src="/ada/first/resolve/main/plots/loss.png"' in html


def test_links_lead_away_without_telling_from_where():
    html = render_card("[paper](https://example.org/paper) [top](#top)").html
    assert 'href="https://example.org/paper"' in html
    assert 'rel="noopener nofollow ugc"' in html
    assert 'href="#top"' in html


@pytest.mark.parametrize(
    ("text", "address", "after"),
    [
        ("See https://example.org/a_b_c?x=1&y=2.", "https://example.org/a_b_c?x=1&amp;y=2", "."),
        ("(http://example.org/a_(b))", "http://example.org/a_(b)", ")"),
        ("- https://example.org/é, and", "https://example.org/%C3%A9", ", and"),
    ],
)
def test_a_bare_address_is_a_link_up_to_the_end_of_its_own(text: str, address: str, after: str):
    html = render_card(text).html
    assert f'href="{address}"' in html
    assert 'rel="noopener nofollow ugc"' in html
    assert f"</a>{after}" in html


@pytest.mark.parametrize(
    "text",
    [
        "`https://example.org`",
        "    https://example.org",
        "https://",
        "https://).",
        "javascript:alert(1) xhttps//example.org",
        "<b title='https://example.org'>x</b>",
    ],
)
def test_what_is_code_or_no_address_becomes_no_link(text: str):
    assert "<a" not in render_card(text).html


def test_an_address_inside_of_a_link_makes_no_second_one():
    for text in (
        "[https://example.org/a](https://example.org/b)",
        "<a href='https://example.org/b'>https://example.org/a</a>",
    ):
        html = render_card(text).html
        assert html.count("<a ") == 1
        assert 'href="https://example.org/b"' in html


def test_a_card_full_of_addresses_and_brackets_ends_soon():
    started = time.perf_counter()
    render_card("https://example.org/" + ")" * 200_000)
    render_card("https://a.b/" * 20_000)
    render_card(("https://a.b/" + "(" * 50 + ")" * 1900 + " ") * 100)
    assert time.perf_counter() - started < 5


def test_tables_and_code_are_kept():
    html = render_card("| a | b |\n| - | - |\n| 1 | 2 |\n\n```python\nx = 1\n```\n").html
    assert "<table>" in html
    assert '<code class="language-python">' in html


def test_a_deeply_nested_card_ends_soon():
    render_card("> " * 5_000 + "x")
    render_card("[" * 20_000)
    render_card("*a_ " * 20_000)


def test_a_task_list_shows_what_is_done():
    html = render_card("- [x] trained\n- [ ] scored\n- [z] odd\n").html
    assert "☑ trained" in html
    assert "☐ scored" in html
    assert "[z] odd" in html
