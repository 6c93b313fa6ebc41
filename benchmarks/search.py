"""How fast the search answers: `python -m benchmarks.search --rows 1000000 --database postgres://…/scratch`.

Fills an empty database (SQLite in a temporary folder without `--database`) with generated adapters, and asks it a fixed
mix of questions through the whole web process: pages of the API, `/modules` with all facet counts, and the other pages
that list or count. It prints one JSON object with p50, p95 and the slowest question of each kind. The database is left for a second run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import urlencode

WORDS = [
    "colour",
    "animal",
    "story",
    "place",
    "count",
    "sentiment",
    "summary",
    "question",
    "answer",
    "label",
    "news",
    "legal",
    "medical",
    "code",
    "chat",
    "math",
    "translation",
    "german",
    "french",
    "dialogue",
    "review",
    "topic",
    "intent",
    "entity",
    "toxicity",
    "paraphrase",
    "inference",
    "reading",
    "science",
    "history",
    "poetry",
    "email",
    "support",
    "finance",
    "weather",
    "travel",
    "recipe",
    "sports",
    "music",
    "film",
    "law",
    "patent",
    "tweet",
    "product",
    "instruction",
    "reasoning",
    "logic",
    "grammar",
    "spelling",
    "title",
    "keyword",
    "query",
    "table",
    "schema",
    "image",
    "caption",
    "speech",
]
BASES, TASKS, PEOPLE, BOARDS, CANDIDATES = 300, 5_000, 20_000, 60, 5
TARGETS = ["q,v", "k,q,v", "k,o,q,v", "q_proj,v_proj", "k_proj,o_proj,q_proj,v_proj", "c_attn"]
LICENCES = ["apache-2.0", "mit", "", "cc-by-4.0", "llama3.2", "openrail", "gpl-3.0", "cc-by-nc-4.0"]
LANGUAGES = ["en", "", "de", "fr", "zh", "es", "ja", "hi", "ar", "pt", "ru", "ko"]
RANKS = [8, 16, 4, 32, 64, 2, 128, 1, 12, 24, 256]
BATCH = 10_000
ROUNDS = 3


def zipf(generator: random.Random, size: int) -> int:
    """0 to size - 1, the small ones often: as popularity falls off on real sites."""
    return min(int(size ** generator.random()) - 1, size - 1)


def pick(generator: random.Random, values: list[Any]) -> Any:
    return values[zipf(generator, len(values))]


def fill(rows: int) -> None:
    """Generated adapters, the same for the same number; triggers off while they come, everything synced after."""
    from django.db import connection

    from registry.models import Adapter, BaseModel, Namespace, Revision, Task
    from registry.search import backends, upkeep

    generator = random.Random(7)
    people = Namespace.objects.bulk_create(
        [Namespace(name=f"{pick(generator, WORDS)}-lab-{n}") for n in range(min(PEOPLE, rows))],
        batch_size=BATCH,
    )
    bases = BaseModel.objects.bulk_create([BaseModel(name=f"maker-{n % 40}/base-{n}b") for n in range(BASES)])
    tasks = Task.objects.bulk_create(
        [Task(slug=f"task-{n}", title=f"{pick(generator, WORDS).title()} {pick(generator, WORDS)} {n}") for n in range(TASKS)],
        batch_size=BATCH,
    )  # fmt: skip
    _triggers(connection, on=False)
    for start in range(0, rows, BATCH):
        numbers = range(start, min(start + BATCH, rows))
        made = Adapter.objects.bulk_create([_adapter(generator, n, people, bases, tasks) for n in numbers])
        heads = Revision.objects.bulk_create([_revision(generator, adapter) for adapter in made])
        for adapter, head in zip(made, heads, strict=True):
            adapter.head = head
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE registry_adapter SET head_id = (SELECT id FROM registry_revision r WHERE r.adapter_id = "
                "registry_adapter.id) WHERE id BETWEEN %s AND %s",
                [made[0].pk, made[-1].pk],
            )
        print(f"{numbers[-1] + 1:,} adapters", file=sys.stderr)
    fill_boards(generator)
    _triggers(connection, on=True)
    backends.of(connection).resync(connection)
    upkeep.write_postings()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def _triggers(connection: Any, *, on: bool) -> None:
    from registry.search import backends

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"SET session_replication_role = {'origin' if on else 'replica'}")
    if connection.vendor != "postgresql":
        backend = backends.of(connection)
        backend.install(connection) if on else backend.remove(connection)


def _adapter(generator: random.Random, number: int, people: Any, bases: Any, tasks: Any) -> Any:
    from datetime import UTC, datetime, timedelta

    from registry.models import Adapter

    words = [pick(generator, WORDS) for _ in range(12)]
    base = pick(generator, bases)
    when = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number * 60 + generator.randrange(60))
    visibility = "private" if generator.random() < 0.02 else "public"
    return Adapter(
        namespace=people[zipf(generator, len(people))],
        name=f"{words[0]}-{words[1]}-{number}",
        description=" ".join(words[2:]),
        kind="composed" if generator.random() < 0.15 else "module",
        visibility=visibility,
        license=pick(generator, LICENCES),
        language=pick(generator, LANGUAGES),
        tags=[words[3], words[4]],
        task=pick(generator, tasks) if generator.random() < 0.8 else None,
        base_model=base,
        rank=pick(generator, RANKS),
        size_bytes=int(1e6 * 1000 ** generator.random()),
        is_composable=generator.random() < 0.9,
        best_score=round(generator.random(), 3) if generator.random() < 0.2 else None,
        downloads=zipf(generator, 100_000),
        likes=zipf(generator, 1000),
        created_at=when,
        first_public_at=when if visibility == "public" else None,
        updated_at=when,
    )


def _revision(generator: random.Random, adapter: Any) -> Any:
    from registry.models import Revision

    return Revision(
        adapter=adapter,
        commit=f"{adapter.pk:040x}",
        message="Upload",
        created_at=adapter.created_at,
        facts={
            "target_names": pick(generator, TARGETS).split(","),
            "target_matrices": 24,
            "rank": adapter.rank,
        },
    )


def fill_boards(generator: random.Random) -> None:
    """A composition with two scores and some candidates for each composed adapter, on the leaderboards of BOARDS tasks."""
    from datetime import timedelta

    from django.utils import timezone

    from compose.models import Candidate, Composition, Score
    from registry.models import Adapter, Revision, User
    from registry.task_sets import save_task

    owner = User.objects.create(username="somebody")
    rows = [{"input": f"question {number}", "output": str(number)} for number in range(20)]
    tasks = [
        save_task(
            slug=f"board-{n}",
            title=f"Board {n}",
            description="",
            base_model=None,
            few_shot=rows[:5],
            test=rows,
        )
        for n in range(BOARDS)
    ]
    newest = {task.pk: task.revisions.get() for task in tasks}
    revisions = list(Revision.objects.order_by("pk").values_list("pk", flat=True))
    composed = Adapter.objects.filter(kind="composed", base_model__isnull=False).values_list(
        "pk", "base_model"
    )
    now = timezone.now()
    for start in range(0, len(composed), BATCH):
        asked = []
        for adapter, base_model in composed.order_by("pk")[start : start + BATCH]:
            task = pick(generator, tasks)
            ended = now - timedelta(minutes=10 + generator.randrange(700 * 24 * 60))
            asked.append(
                Composition(
                    owner=owner, title=task.title, task=task, task_revision=newest[task.pk], base_model_id=base_model,
                    adapter_id=adapter, status="succeeded", method="auto", budget=300, seed=1, has_hidden_test=True,
                    metric="exact_match", spec_sha256=f"{adapter:064x}", examples=rows[:5],
                    created_at=ended - timedelta(minutes=5), started_at=ended - timedelta(minutes=4), finished_at=ended,
                    gain=generator.random(), board_score=round(generator.random(), 2),
                )
            )  # fmt: skip
        made = Composition.objects.bulk_create(asked)
        Score.objects.bulk_create(
            Score(
                composition=composition, position=place, method=method, metric="exact_match", split="held_out",
                value=value, low=0, high=1, n=len(rows),
            )
            for composition in made
            for place, (method, value) in enumerate(
                [("zero_shot", round(generator.random() / 2, 2)), ("auto", composition.board_score or 0.0)]
            )
        )  # fmt: skip
        Candidate.objects.bulk_create(
            Candidate(
                composition=composition, position=place, revision_id=revision, mixing_weight=generator.random(),
                audition_loss=generator.random(), attribution=generator.random() - 0.3,
            )
            for composition in made
            for place, revision in enumerate({revisions[zipf(generator, len(revisions))] for _ in range(CANDIDATES)})
        )  # fmt: skip


def questions(count: int) -> Iterator[dict[str, str]]:
    """What people ask: half browse, half search; every filter, order and combination comes up, rare values too."""
    generator = random.Random(11)
    sorts = ["new", "updated", "downloads", "likes", "score", "trending", "useful"]
    yield {}
    yield from ({"sort": sort} for sort in sorts)
    # What an index walked in the order of the list does worst: rare under the order, and matching nothing at all.
    yield from ({"rank": rank, "license": licence, "composable": "no", "language": "ko"} for rank, licence in product(["256", "1"], LICENCES[-2:]))  # fmt: skip
    for _ in range(count):
        asked: dict[str, str] = {}
        filters = {
            "base": f"maker-{(base := zipf(generator, BASES)) % 40}/base-{base}b",
            "task": f"task-{zipf(generator, TASKS)}",
            "tag": pick(generator, WORDS),
            "rank": str(pick(generator, RANKS)),
            "targets": pick(generator, TARGETS),
            "license": pick(generator, [licence for licence in LICENCES if licence]),
            "language": pick(generator, [language for language in LANGUAGES if language]),
            "size": generator.choice(["0-4", "5-19", "20-49", "100-249"]),
            "composable": generator.choice(["yes", "yes", "no"]),
            "kind": generator.choice(["module", "module", "composed"]),
        }
        for name in generator.sample(sorted(filters), generator.choice([0, 1, 1, 2, 2, 3])):
            asked[name] = filters[name]
        if generator.random() < 0.5:
            words = [pick(generator, WORDS) for _ in range(generator.choice([1, 1, 2, 3]))]
            if generator.random() < 0.3:
                words[-1] += f"-{generator.choice(WORDS)}"
            if generator.random() < 0.1:  # misspelt
                word = words[0]
                words[0] = word[:2] + word[3:] + "x"
            asked["q"] = " ".join(words)
        elif generator.random() < 0.6:
            asked["sort"] = generator.choice(sorts)
        yield asked


def other_pages() -> list[str]:
    """Addresses of the pages that count or list beside the search, none of which may take longer on a big site."""
    from registry.models import Adapter, BaseModel, Task

    some = (
        Adapter.objects.visible_to(None).filter(task__isnull=False).select_related("namespace").earliest("pk")
    )
    base = BaseModel.objects.earliest("pk").name
    task = Task.objects.earliest("pk").slug
    return [
        "/", "/tasks", "/tasks?kind=trained", f"/tasks/{task}", "/tasks/board-0", "/base-models", f"/base-models/{base}",
        f"/{some.namespace.name}", some.get_absolute_url(), "/compose", f"/compose?base_model={base}", "/modules/fit",
        "/status", "/sitemap.xml", "/sitemap-modules.xml", "/api/v1/tasks/", "/api/v1/base-models/",
        f"/api/v1/base-models/{base}/", "/api/models?sort=downloads", "/api/models?sort=trendingScore",
        "/api/models?search=no-such-name", "/api/models?filter=no-such-tag", f"/api/models?filter=base_model:{base}",
    ]  # fmt: skip


def measure(urls: list[str]) -> dict[str, Any]:
    """Seconds of each address, each asked ROUNDS times over."""
    from django.test import Client

    client = Client()
    seconds: list[tuple[float, str]] = []
    for _ in range(ROUNDS):
        for url in urls:
            start = time.perf_counter()
            answer = client.get(url)
            seconds.append((time.perf_counter() - start, url))
            if answer.status_code != 200:
                raise SystemExit(f"{url} answered {answer.status_code}: {answer.content[:300]!r}")
    times = sorted(taken for taken, _ in seconds)
    return {
        "requests": len(times),
        "p50_ms": round(1000 * statistics.median(times), 1),
        "p95_ms": round(1000 * times[int(0.95 * len(times))], 1),
        "slowest_ms": round(1000 * times[-1], 1),
        "slowest": [f"{1000 * taken:.0f} ms {url}" for taken, url in sorted(seconds, reverse=True)[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--database", default="", help="of an empty Postgres database, or one filled before")
    parser.add_argument("--data", default="", help="folder for SQLite; a temporary one unless given")
    parser.add_argument("--fill-only", action="store_true")
    given = parser.parse_args()
    os.environ["LORA_DATA_DIR"] = given.data or tempfile.mkdtemp(prefix="lora-search-")
    os.environ["THROTTLE_ANONYMOUS"] = "1000000/5m"
    os.environ["ALLOWED_HOSTS"] = "testserver"
    os.environ["LORA_DEBUG"] = "false"
    if given.database:
        os.environ["DATABASE_URL"], os.environ["SECRET_KEY"] = given.database, "x" * 50
    else:
        os.environ.pop("DATABASE_URL", None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    django.setup()
    from django.db import connection

    from registry.models import Adapter
    from registry.search import AdapterQuery, find

    call_command("migrate", verbosity=0)
    start = time.perf_counter()
    if not Adapter.objects.exists():
        fill(given.rows)
    filled_s = time.perf_counter() - start
    if given.fill_only:
        return
    start = time.perf_counter()
    find(AdapterQuery(), person=None)
    first_s = time.perf_counter() - start
    asked = [urlencode(params) for params in questions(given.questions)]
    result = {
        "database": connection.vendor,
        "adapters": Adapter.objects.count(),
        "filled_s": round(filled_s, 1),
        "first_search_of_a_process_s": round(first_s, 2),
        "page_of_api": measure([f"/api/v1/adapters/?{params}" for params in asked]),
        "facets_of_api": measure([f"/api/v1/adapters/facets/?{params}&limit=1" for params in asked]),
        "modules_page_with_facets": measure([f"/modules?{params}" for params in asked]),
        "other_pages": measure(other_pages()),
    }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
