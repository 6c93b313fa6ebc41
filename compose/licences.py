"""Which licence a composed adapter can have, from those of its parents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compose.engine.wording import first_of
from compose.models import Candidate

# From the least demanding on: who passes on a mix of these keeps to the last one.
_PERMISSIVE = (
    "cc0-1.0",
    "unlicense",
    "0bsd",
    "mit",
    "isc",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "apache-2.0",
    "cc-by-4.0",
)
OTHER = "other"


@dataclass(frozen=True)
class DerivedLicence:
    """`license` is an identifier for the adapter; `note` says how it came about; `is_doubtful`: a person must look."""

    license: str
    note: str
    is_doubtful: bool = False


def licence_of(candidates: Iterable[Candidate]) -> DerivedLicence | None:
    """What the licences of those with a weight allow; None where nothing was kept."""
    kept = [candidate.revision.adapter for candidate in candidates if candidate.mixing_weight]
    return derive_licence([(adapter.full_name, adapter.license) for adapter in kept]) if kept else None


def derive_licence(parents: Sequence[tuple[str, str]]) -> DerivedLicence:
    """The licence of a mix of `parents`, pairs of name and licence. A proposal in words, not legal advice.

    Equal licences stay; permissive ones become the most demanding of them; anything else is "other", said why.
    """
    licences = {name: licence.strip().lower() for name, licence in parents}
    missing = [name for name, licence in licences.items() if not licence or licence in {OTHER, "unknown"}]
    found = sorted({licence for licence in licences.values() if licence})
    if missing:
        states = (
            "states no licence, so ask its author"
            if len(missing) == 1
            else "state no licence, so ask their authors"
        )
        return DerivedLicence(OTHER, f"{first_of(missing, most=3)} {states} before you pass this on.", True)
    if len(found) == 1:
        note = f"All parents have the licence {found[0]}."
        if "-nd" in found[0]:
            return DerivedLicence(
                found[0], f"{note} It does not allow derived works; ask their authors.", True
            )
        return DerivedLicence(found[0], note)
    named = ", ".join(f"{licence} ({first_of(_with(licences, licence), most=3)})" for licence in found)
    if all(licence in _PERMISSIVE for licence in found):
        chosen = max(found, key=_PERMISSIVE.index)
        return DerivedLicence(
            chosen, f"The parents' licences differ: {named}. All allow it, {chosen} asks the most."
        )
    return DerivedLicence(
        OTHER, f"The parents' licences differ: {named}. Read them before you pass this on.", is_doubtful=True
    )


def _with(licences: dict[str, str], licence: str) -> list[str]:
    return [name for name, own in licences.items() if own == licence]
