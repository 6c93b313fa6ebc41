"""The first page comes with its styles inside; the ones after it link to them."""

from __future__ import annotations

import re

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db
OPENS_A_PAGE = {"Sec-Fetch-Dest": "document"}


def test_the_first_page_has_its_styles_inside_under_a_nonce_of_its_own():
    browser = Client(headers=OPENS_A_PAGE)
    first = browser.get("/docs")
    nonces = set(re.findall(r'<style nonce="([^"]+)">', first.content.decode()))
    assert len(nonces) == 1
    assert f"'nonce-{nonces.pop()}'" in first.headers["Content-Security-Policy"]
    assert "--accent" in first.content.decode()
    assert 'rel="stylesheet"' not in first.content.decode()
    assert 'rel="prefetch" as="style" href="/static/css/base.css"' in first.content.decode()


def test_the_next_page_links_to_them_and_its_policy_knows_no_nonce():
    browser = Client(headers=OPENS_A_PAGE)
    browser.get("/docs")
    second = browser.get("/docs")
    assert "<style" not in second.content.decode()
    assert '<link rel="stylesheet" href="/static/css/base.css">' in second.content.decode()
    assert "nonce" not in second.headers["Content-Security-Policy"]


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Dest": "empty"}])
def test_scripts_and_fragments_get_links(headers: dict[str, str]):
    assert "<style" not in Client(headers=headers).get("/docs").content.decode()


def test_two_visitors_get_different_nonces():
    pages = [Client(headers=OPENS_A_PAGE).get("/docs").content.decode() for _ in range(2)]
    nonces = {re.findall(r'nonce="([^"]+)"', page)[0] for page in pages}
    assert len(nonces) == 2
