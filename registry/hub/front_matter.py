"""What a card's front matter may say and the Hub's clients cannot read.

They fail on it in `model_info`, with it in every download of the whole repository, and in every list that it stands in. So
it is left out of what we tell them, and whoever sends such a card is warned; the file itself stays as it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Names of the clients' own arguments, beside which they put what the front matter holds.
_ARGUMENTS = frozenset({"self", "ignore_metadata_errors"})


def unreadable(front_matter: Mapping[str, Any]) -> dict[str, str]:
    """Each key that clients of the Hub fail on, and what is wrong with it."""
    found = {
        key: f"{key!r} is no name that a card's metadata can have. It is left out of them."
        for key in _ARGUMENTS & front_matter.keys()
    }
    if not isinstance(front_matter.get("tags"), str | list | None):
        found["tags"] = "'tags' has to be a list. It is left out of the metadata."
    if not all(map(_is_readable, _sources(front_matter.get("model-index")))):
        found["model-index"] = (
            "A 'source' in 'model-index' has to have a 'url'. 'model-index' is left out of the metadata."
        )
    return found


def _sources(model_index: Any) -> Iterator[Any]:
    """What the results say of where they come from, up to one of another shape: clients stop there by themselves."""
    try:
        for model in model_index or []:
            for result in model["results"]:
                yield result.get("source")
    except (AttributeError, KeyError, TypeError):
        return


def _is_readable(source: Any) -> bool:
    if not source:
        return True
    return isinstance(source, dict) and (source.get("name") is None or source.get("url") is not None)
