"""Hostile text in every field that strangers fill, looked at in real Chromium under the site's own policy (F28).

The `page` fixture fails the test for a script that breaks, a breach of the policy, and a request to another host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

from registry import moderation, organisations, publishing
from registry.models import Adapter, BaseModel, Task
from tests.factories import make_base_model, make_user, namespace_of
from tests.fake_adapters import files_of
from tests.fake_adapters import make_adapter as make_adapter_folder

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

RUN = "window.__xss=(window.__xss||0)+1"
MARKUP = [
    f"<script>{RUN}</script>", f"<img src=x onerror='{RUN}'>", f"<svg onload='{RUN}'></svg>", f"<body onload='{RUN}'>",
    f"<svg><script>{RUN}</script></svg>", f"<math><mtext><script>{RUN}</script></mtext></math>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>", f"<iframe src='javascript:{RUN}'></iframe>",
    f"<object data='javascript:{RUN}'></object>", f"<embed src='javascript:{RUN}'>", f"<a href='javascript:{RUN}'>a</a>",
    f"<form action='javascript:{RUN}'><button autofocus>x</button></form>", f"<input autofocus onfocus='{RUN}'>",
    f"<details open ontoggle='{RUN}'>x</details>", f"<video src=x onerror='{RUN}'></video>", f"<audio src=x onerror='{RUN}'>",
    f"<marquee onstart='{RUN}'>x</marquee>", f"<style>@import 'javascript:{RUN}';</style>", f"<link rel=stylesheet href='javascript:{RUN}'>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>", "<meta http-equiv=refresh content='0;url=http://evil.invalid/'>",
    "<base href='http://evil.invalid/'>", "<img src='http://evil.invalid/track.png'>", "<link rel=prefetch href='http://evil.invalid/'>",
    "<style>body{background:url(http://evil.invalid/)}</style>", "<div style='background:url(http://evil.invalid/)'>x</div>",
    f"<div onmouseover='{RUN}' style='position:fixed;inset:0'>x</div>", f"</div></main><script>{RUN}</script>",
    f"<!--><script>{RUN}</script>-->", f"<![CDATA[<script>{RUN}</script>]]>", f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"<template><script>{RUN}</script></template>", f"<xss id=x tabindex=1 onfocus='{RUN}'></xss>", f"<a id=location href='javascript:{RUN}'>x</a>",
    f"<p hx-get='/api/health' hx-trigger='load' hx-on::after-request='{RUN}'>x</p>", "<p hx-get='http://evil.invalid/' hx-trigger='load'>x</p>",
    "<button form='x' formaction='http://evil.invalid/'>x</button>", f"<select onfocus='{RUN}' autofocus></select>",
    f"<IMG SRC=`javascript:{RUN}`>", f"<a href='&#106;avascript:{RUN}'>x</a>", f"<a href='java\tscript:{RUN}'>x</a>", f"<svg><a xlink:href='javascript:{RUN}'><text>x</text></a></svg>",
]  # fmt: skip
MARKDOWN = [
    f"[a](javascript:{RUN})", f"[a](JaVaScRiPt:{RUN})", f"[a](data:text/html,<script>{RUN}</script>)", f"[a](vbscript:{RUN})",
    f"![a](javascript:{RUN})", "![a](http://evil.invalid/x.png)", f'[a](x "onmouseover={RUN}")', f"<javascript:{RUN}>",
    f"[a][b]\n\n[b]: javascript:{RUN}", f"```html\n<script>{RUN}</script>\n```", f"`<script>{RUN}</script>`",
    f"&lt;script&gt;{RUN}&lt;/script&gt;", f"# <img src=x onerror={RUN}>", f"| <script>{RUN}</script> |\n|---|\n| x |",
    "[a](//evil.invalid/x)", "![a](\\\\evil.invalid\\x.png)",
]  # fmt: skip
BREAK_OUT = f"\"'><script>{RUN}</script><img src=x onerror={RUN}>{{{{7*7}}}}${{7*7}}</title></textarea>"


def test_the_payloads_are_many():
    assert len(MARKUP) + len(MARKDOWN) >= 50


def test_no_text_of_a_stranger_runs_or_asks_another_host(live_server: Any, page: Page, tmp_path: Any):
    base = make_base_model()
    ada = make_user("ada")
    space = namespace_of(ada)
    space.full_name = BREAK_OUT[:200]
    space.save()
    card = "---\nlicense: mit\n---\n" + "\n\n".join(MARKUP + MARKDOWN)
    folder = make_adapter_folder(tmp_path / "a", card=card, note=BREAK_OUT)
    (folder / "notes.txt").write_text(BREAK_OUT)
    adapter = publishing.publish(
        author=ada, namespace=space, name="m", files=files_of(folder), description=BREAK_OUT, license=BREAK_OUT[:100],
        tags=[BREAK_OUT[:40].replace(",", "")], language=BREAK_OUT[:40], message=BREAK_OUT, base_model="demo/tiny-t5",
    )  # fmt: skip
    task = Task.objects.create(slug="t", title=BREAK_OUT[:200], description=BREAK_OUT, is_held_out=True)
    Adapter.objects.update(task=task, base_model_label=BREAK_OUT)
    BaseModel.objects.filter(pk=base.pk).update(architecture=BREAK_OUT[:100], license=BREAK_OUT[:100])
    lab = organisations.create_organisation(founder=ada, name="lab", full_name=BREAK_OUT[:200])
    moderation.report(adapter, reporter=None, address="x", reason="other", text=BREAK_OUT)
    staff = make_user("sam", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(staff, backend="django.contrib.auth.backends.ModelBackend")
    cookie = client.cookies["sessionid"].value
    page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
    policies = []
    page.on("response", lambda answer: policies.append((answer.url, answer.headers)))
    addresses = [
        "/", "/modules", "/ada", "/ada/m", "/ada/m/versions", f"/{lab.name}", "/tasks", "/tasks/t", "/base-models",
        "/base-models/demo/tiny-t5", "/moderation", "/ada/m/report", "/compose?task=t", "/status",
        f"/modules?q={BREAK_OUT[:60]}", "/admin/registry/adapter/", f"/admin/registry/adapter/{adapter.pk}/change/",
    ]  # fmt: skip
    for address in addresses:
        page.goto(live_server.url + address)
        page.wait_for_load_state("networkidle")
        page.mouse.move(300, 300)
        assert page.evaluate("window.__xss || 0") == 0, address
        assert "evil.invalid" not in page.url
        assert (
            page.locator(
                "main script:not([src]):not([type='application/json']), main iframe, main object"
            ).count()
            == 0
        ), address
    page.goto(f"{live_server.url}/ada/m")
    assert RUN in page.locator("#card .prose code").first.inner_text(), "the card is not shown at all"
    html = [headers for url, headers in policies if headers.get("content-type", "").startswith("text/html")]
    assert len(html) >= len(addresses)
    assert all("script-src 'self'" in headers.get("content-security-policy", "") for headers in html)
    assert all("unsafe" not in headers["content-security-policy"] for headers in html)
