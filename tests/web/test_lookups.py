"""Names are found in any case, by the indexes that keep them unique."""

import pytest
from django.db import connection

from registry.models import Namespace
from tests.factories import make_organisation


@pytest.mark.django_db
def test_a_name_is_found_in_any_case_and_with_the_signs_that_patterns_have():
    lab = make_organisation("lab_1")
    assert Namespace.objects.get(name__iexact="LAB_1") == lab
    assert not Namespace.objects.filter(name__iexact="labx1").exists()
    assert not Namespace.objects.filter(name__iexact="lab%").exists()


@pytest.mark.django_db
def test_on_postgres_a_name_is_looked_up_as_its_unique_index_has_it():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no such difference.")
    asked = str(Namespace.objects.filter(name__iexact="Lab").query)
    assert 'LOWER(("registry_namespace"."name")::text) = LOWER(' in asked
    assert "UPPER" not in asked


@pytest.mark.django_db
def test_a_name_longer_than_a_pattern_may_be_is_nobodys():
    make_organisation("lab")
    for length in (24_000, 49_000, 200_000):
        assert not Namespace.objects.filter(name__iexact="%" * length).exists()
        assert Namespace.objects.exclude(name__iexact="_" * length).exists()
