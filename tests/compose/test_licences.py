from __future__ import annotations

import pytest

from compose.licences import derive_licence


@pytest.mark.parametrize(
    ("licences", "expected", "is_doubtful"),
    [
        (["mit", "MIT "], "mit", False),
        (["mit", "apache-2.0", "cc0-1.0"], "apache-2.0", False),
        (["mit", "cc-by-4.0"], "cc-by-4.0", False),
        (["mit", "gpl-3.0"], "other", True),
        (["cc-by-nc-4.0", "mit"], "other", True),
        (["mit", ""], "other", True),
        (["cc-by-nd-4.0", "cc-by-nd-4.0"], "cc-by-nd-4.0", True),
        (["llama3", "llama3"], "llama3", False),
    ],
)
def test_a_mix_gets_the_licence_that_all_parents_allow(licences, expected, is_doubtful):
    derived = derive_licence([(f"a/{number}", licence) for number, licence in enumerate(licences)])
    assert (derived.license, derived.is_doubtful) == (expected, is_doubtful)


def test_it_is_said_when_licences_differ():
    derived = derive_licence([("a/one", "mit"), ("b/two", "gpl-3.0")])
    assert derived.note == (
        "The parents' licences differ: gpl-3.0 (b/two), mit (a/one). Read them before you pass this on."
    )


def test_parents_without_a_licence_are_named():
    derived = derive_licence([(f"a/{n}", "") for n in range(5)])
    assert derived.note.startswith("a/0, a/1, a/2 and 2 more state no licence")
