from __future__ import annotations

import pytest
from django.test import Client

from compose import citations
from registry.models import Adapter
from tests.compose.factories import finish, make_composition, owner_of
from tests.factories import make_adapter, namespace_of

pytestmark = pytest.mark.django_db


def test_a_module_is_cited_by_its_name_author_and_version():
    adapter = make_adapter("plain_one")
    text = citations.bibtex(adapter, person=None, site="https://lora.example")
    assert text.count("@misc") == 1
    assert r"plain\_one" in text
    assert f"https://lora.example/{adapter.full_name}" in text
    assert adapter.head.commit in text


def test_what_means_something_to_tex_is_written_to_mean_itself():
    assert citations._escaped("a_b {50%} \\x") == r"a\_b \{50\%\} \textbackslash{}x"


def test_a_composed_adapter_is_cited_with_its_method_and_the_modules_one_may_see():
    composition = finish(make_composition())
    composed = make_adapter("mix", namespace=namespace_of(owner_of(composition)), kind="composed")
    composition.adapter = composed
    composition.save(update_fields=["adapter"])
    text = citations.bibtex(composed, person=None, site="http://here")
    assert "huang2023lorahub" in text
    assert text.count("@misc") == 4
    assert "part-1 (+1.100)" in text
    Adapter.objects.filter(name="part-1").update(visibility="private")
    later = Adapter.objects.get(pk=composed.pk)
    assert "part-1" not in citations.bibtex(later, person=None, site="http://here")
    page = Client().get("/" + composed.full_name).content.decode()
    assert "(4 entries)" in page
