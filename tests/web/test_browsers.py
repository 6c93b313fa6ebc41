"""What browsers say of themselves, as they send it, and what we say of them."""

from __future__ import annotations

import pytest

from web.templatetags.browsers import browser

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)"
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
LINUX = "Mozilla/5.0 (X11; Linux x86_64)"
ANDROID = "Mozilla/5.0 (Linux; Android 10; K)"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Mac"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Firefox on Android"),
        ("Mozilla/5.0 (X11; FreeBSD amd64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox"),
        (f"{IPHONE} {APPLE} FxiOS/140.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPhone"),
        (f"{MAC} {APPLE} FxiOS/140.0 Version/17.5 Safari/605.1.15", "Firefox on iPhone or iPad"),
        (f"{LINUX} {WEBKIT} Chrome/138.0.0.0 Safari/537.36", "Chrome on Linux"),
        (f"{LINUX} {WEBKIT} HeadlessChrome/138.0.0.0 Safari/537.36", "Chrome on Linux"),
        (f"{WINDOWS} {WEBKIT} Chrome/138.0.0.0 Safari/537.36", "Chrome on Windows"),
        (f"{MAC} {WEBKIT} Chrome/138.0.0.0 Safari/537.36", "Chrome on Mac"),
        (f"{ANDROID} {WEBKIT} Chrome/138.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {WEBKIT} Chrome/138.0.0.0 Safari/537.36", "Chrome on ChromeOS"),
        (f"{IPHONE} {APPLE} CriOS/138.0.7204.33 Mobile/15E148 Safari/604.1", "Chrome on iPhone"),
        (f"{IPHONE} {APPLE} Version/17.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        (f"{IPAD} {APPLE} Version/17.5 Mobile/15E148 Safari/604.1", "Safari on iPad"),
        (f"{MAC} {APPLE} Version/17.5 Safari/605.1.15", "Safari on Mac or iPad"),
        (f"{WINDOWS} {WEBKIT} Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0", "Edge on Windows"),
        (f"{ANDROID} {WEBKIT} Chrome/138.0.0.0 Mobile Safari/537.36 EdgA/138.0.0.0", "Edge on Android"),
        (f"{IPHONE} {APPLE} Version/17.0 EdgiOS/138.0.0.0 Mobile/15E148 Safari/605.1.15", "Edge on iPhone"),
        (f"{WINDOWS} {WEBKIT} Chrome/138.0.0.0 Safari/537.36 OPR/122.0.0.0", "Opera on Windows"),
        (
            f"{ANDROID} {WEBKIT} SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
    ],
)  # fmt: skip
def test_a_browser_is_said_with_its_system(sent: str, said: str):
    assert browser(sent) == said


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "curl/8.5.0",
        "python-requests/2.32.3",
        "Firefox on Linux",
        f"{LINUX} {WEBKIT} Chrome/138.0.0.0 Safari/537.36 Vivaldi/7.4",
        f"{WINDOWS} {WEBKIT} Chrome/138.0.0.0 YaBrowser/25.6 Safari/537.36",
        "Mozilla/5.0 (Windows NT 10.0; rv:91.0) Gecko/20100101 Firefox/91.0 SeaMonkey/2.53",
        f"{LINUX} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15",  # GNOME Web
        f"Mozilla/5.0 (Linux; Android 10; K; wv) {WEBKIT} Version/4.0 Chrome/138.0.0.0 Mobile Safari/537.36",
        f"{WINDOWS} {WEBKIT} Chrome/138.0.0.0 Safari/537.36 and more that was cut off",
    ],
)
def test_what_we_do_not_know_is_not_guessed(sent: str):
    assert browser(sent) == ""
