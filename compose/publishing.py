"""A finished composition becomes a composed adapter of the registry, with its card, recipe and lineage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from compose import cards, naming, recipes
from compose.candidates import require_no_quarantine
from compose.errors import NoSuchComposition, PrivateParents, WrongState
from compose.jobs import require_owner
from compose.licences import DerivedLicence, derive_licence
from compose.lineage import parents
from compose.models import Candidate, Composition, Score
from registry import publishing, storage
from registry.filenames import CARD, CONFIG, WEIGHTS
from registry.models import Adapter, AdapterScore, Namespace, User
from registry.rights import require_write
from web.errors import Conflict

logger = logging.getLogger(__name__)


def publish_composition(
    composition: Composition,
    *,
    actor: User,
    namespace: Namespace,
    name: str,
    visibility: str = Adapter.Visibility.PRIVATE,
    description: str = "",
) -> Adapter:
    """Publish what a composition made as `namespace/name`, once. Returns the composed adapter.

    Its files are the adapter, a generated card and the recipe; its parents are the candidates, its licence is
    derived from theirs. Raises WrongState, PrivateParents, ParentInQuarantine, Conflict when the name is taken, Forbidden, and what
    `registry.publishing.publish` raises; then nothing is kept.
    """
    require_owner(composition, actor)
    require_write(actor, namespace)
    composition = _as_it_is(composition, actor)
    candidates, licence = _made_of(composition, actor, namespace, name, visibility)

    def check_again() -> None:
        # The namespace is held, and now the composition: so takes them whoever deletes either. Of two clicks the second waits
        # here and then finds the adapter.
        if not Composition.objects.select_for_update().filter(pk=composition.pk).values_list("pk"):
            raise NoSuchComposition  # it was removed at this moment
        now, _ = _made_of(_as_it_is(composition, actor), actor, namespace, name, visibility)
        if _named_with_licence(now) != _named_with_licence(candidates):
            raise Conflict("The modules that it is made of were changed at this moment. Publish it again.")

    def keep_scores(adapter: Adapter) -> None:
        held = _as_it_is(composition, actor)
        adapter.task = held.task
        score = held_out_score(held)
        if score is not None:
            adapter.best_score, adapter.best_score_metric = score.value, score.metric
        adapter.save(update_fields=["task", "best_score", "best_score_metric"])
        _keep_task_score(held, adapter)
        held.adapter = adapter
        held.save(update_fields=["adapter"])

    with TemporaryDirectory(dir=settings.UPLOAD_TMP_DIR, prefix="composed-") as folder:
        adapter = publishing.publish(
            author=actor,
            namespace=namespace,
            name=name,
            files=_files(composition, candidates, licence, f"{namespace.name}/{name}", Path(folder)),
            description=description.strip() or cards.summary(composition, candidates),
            base_model=composition.base_model.name,
            license=licence.license,
            visibility=visibility,
            tags=["composed", composition.method],
            message=f"Composition {composition.pk}",
            kind=Adapter.Kind.COMPOSED,
            once_held=check_again,
            once_written=keep_scores,
        )
    logger.info("composition %s was published as %s", composition.pk, adapter)
    return adapter


def _keep_task_score(composition: Composition, adapter: Adapter) -> None:
    """What it reached on a task's hidden rows becomes the adapter's, for its page and for lists sorted by it.

    By the task's metric, whatever else the composition was scored by.
    """
    revision = composition.task_revision
    if composition.task is None or revision is None or not composition.has_hidden_test:
        return
    score = held_out_score(composition, revision.metric)
    if score is None or score.n < len(revision.test):
        return  # some of them were among its examples
    AdapterScore.objects.update_or_create(
        adapter=adapter,
        task=composition.task,
        source=AdapterScore.Source.VERIFIED,
        metric=score.metric,
        defaults={
            "task_revision": revision,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "note": f"Composition {composition.pk}, revision {revision.number} of the task",
        },
    )


def held_out_score(composition: Composition, metric: str = "") -> Score | None:
    """The composed adapter's own score on rows that the search did not see; None when there were none.

    By the metric that its owner chose, unless another is named.
    """
    metric = metric or composition.metric
    return composition.scores.filter(method=composition.method, metric=metric, split="held_out").first()


# --- What must hold ------------------------------------------------------------------------------------------


def _as_it_is(composition: Composition, actor: User) -> Composition:
    """Its row as it is now, as far as `actor` may see it. Raises NoSuchComposition."""
    found = Composition.objects.select_related("base_model", "task", "weights_blob", "config_blob", "owner")
    now = found.prefetch_related(naming.published(actor)).filter(pk=composition.pk).first()
    if now is None:
        raise NoSuchComposition
    return now


def _made_of(
    composition: Composition, actor: User, namespace: Namespace, name: str, visibility: str
) -> tuple[list[Candidate], DerivedLicence]:
    """What it is made of, and the licence that follows. Raises what `publish_composition` does."""
    _require_publishable(composition)
    candidates = list(
        composition.candidates.select_related("revision__adapter__namespace", "revision__author")
    )
    named = naming.named_in(composition, actor)
    require_no_quarantine((candidate.revision for candidate in candidates), named)
    _require_nameable(candidates, namespace, visibility, named)
    _require_new_name(namespace, name)
    return candidates, derive_licence(_licences(candidates))


def _require_publishable(composition: Composition) -> None:
    if composition.status != Composition.Status.SUCCEEDED:
        raise WrongState(
            f"This composition is {composition.status}; only one that succeeded can be published."
        )
    if composition.adapter_id is not None:
        name = f", as {composition.adapter.full_name}" if composition.adapter else ""
        raise WrongState(f"This composition is already published{name}.")


def require_nameable_parents(adapter: Adapter, namespace: Namespace, visibility: str, actor: User) -> None:
    """Raises PrivateParents for a composed adapter that may not be in `namespace` with `visibility`, since its files name what
    its readers there must not know of; for one that is not composed, nothing."""
    composition = Composition.objects.filter(adapter=adapter).first()
    if composition is not None:
        candidates = composition.candidates.select_related("revision__adapter__namespace")
        _require_nameable(candidates, namespace, visibility, naming.named_in(composition, actor))


def _require_nameable(
    candidates: Iterable[Candidate], namespace: Namespace, visibility: str, named: set[int]
) -> None:
    # Also those of weight 0: the recipe names them.
    private = [c.revision.adapter for c in candidates if c.revision.adapter.is_private]
    if visibility != Adapter.Visibility.PUBLIC:
        # A person's own namespace has one reader, who composed. In an organisation's, its members know its own modules.
        private = [
            each for each in private if namespace.is_organisation and each.namespace_id != namespace.pk
        ]
    if private:
        readers = (
            "everybody" if visibility == Adapter.Visibility.PUBLIC else f"the members of {namespace.name}"
        )
        raise PrivateParents([naming.name_of(each, named) for each in private], readers)


def _require_new_name(namespace: Namespace, name: str) -> None:
    """A composition never becomes a revision of something else."""
    if Adapter.objects.alive().filter(namespace=namespace, name__iexact=name).exists():
        raise Conflict(
            f"There is already a LoRA module {namespace.name}/{name}. Choose another name.",
            fields={"name": ["This name is taken."]},
        )


def _licences(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    return _named_with_licence(parents(candidates) or candidates)


def _named_with_licence(candidates: Iterable[Candidate]) -> list[tuple[str, str]]:
    return [(c.revision.adapter.full_name, c.revision.adapter.license) for c in candidates]


# --- The files -----------------------------------------------------------------------------------------------


def _files(
    composition: Composition,
    candidates: Sequence[Candidate],
    licence: DerivedLicence,
    full_name: str,
    folder: Path,
) -> dict[str, Path]:
    assert composition.weights_blob is not None
    assert composition.config_blob is not None
    card = folder / CARD
    card.write_text(cards.make_card(composition, candidates, licence, full_name), encoding="utf-8")
    recipe = folder / "recipe.json"
    recipe.write_text(recipes.as_text(recipes.recipe(composition)), encoding="utf-8")
    return {
        CONFIG: storage.local_path(composition.config_blob),
        WEIGHTS: storage.local_path(composition.weights_blob),
        CARD: card,
        "recipe.json": recipe,
    }
