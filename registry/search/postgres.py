"""The search on Postgres: tsvector and posting lists for words, transaction ids for what has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.search import postings
from registry.search.backends import COLUMNS, ROW, TASK_COLUMNS, TASK_TITLE, Batch, as_batch
from registry.search.bulk import everything

# Tokens are split at every ASCII character that is neither letter nor digit: Postgres's own parser would keep host
# names, paths and hyphenated words together.
_SPLIT = r"'[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]+', ' ', 'g'"

_DOCUMENTS = rf"""
CREATE EXTENSION IF NOT EXISTS pg_trgm;
ALTER TABLE registry_adaptertext ADD COLUMN IF NOT EXISTS names_document tsvector GENERATED ALWAYS AS
    (to_tsvector('simple'::regconfig, regexp_replace(names, {_SPLIT}))) STORED;
ALTER TABLE registry_adaptertext ADD COLUMN IF NOT EXISTS document tsvector GENERATED ALWAYS AS
    (to_tsvector('simple'::regconfig, regexp_replace(names || ' ' || about || ' ' || card, {_SPLIT}))) STORED;
CREATE INDEX IF NOT EXISTS adapter_text_names ON registry_adaptertext USING gin (names_document);
CREATE INDEX IF NOT EXISTS adapter_text_words ON registry_adaptertext USING gin (document);
CREATE INDEX IF NOT EXISTS namespace_name_parts ON registry_namespace USING gin (upper(name::text) gin_trgm_ops);
CREATE INDEX IF NOT EXISTS task_title_parts ON registry_task USING gin (upper(title::text) gin_trgm_ops);
CREATE INDEX IF NOT EXISTS adapter_text_name_parts ON registry_adaptertext USING gin (upper(names::text) gin_trgm_ops);
CREATE INDEX IF NOT EXISTS adapter_not_for_everybody ON registry_adapter (namespace_id)
    WHERE visibility = 'private' OR quarantined_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS adapter_dataset_parts ON registry_adapter USING gin (upper(dataset::text) gin_trgm_ops);
CREATE INDEX IF NOT EXISTS revision_task_type ON registry_revision ((facts -> 'task_type'));
CREATE INDEX IF NOT EXISTS adapter_updated ON registry_adapter (updated_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS adapter_liked ON registry_adapter (likes DESC, id DESC);
CREATE INDEX IF NOT EXISTS search_row_trending ON registry_searchrow (trending DESC, adapter_id DESC);
ALTER TABLE registry_adaptertext ADD COLUMN IF NOT EXISTS changed_in bigint NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS adapter_text_changed ON registry_adaptertext (changed_in);
DROP INDEX IF EXISTS adapter_text_likeness;
"""

# The rest of the search row: where the databases have words of their own.
_ROW = ROW | {
    "targets": """coalesce((SELECT left(string_agg(value, ',' ORDER BY value COLLATE "C"), 500) FROM registry_revision r,
        jsonb_array_elements_text(CASE jsonb_typeof(r.facts -> 'target_names') WHEN 'array'
        THEN r.facts -> 'target_names' ELSE '[]'::jsonb END) WHERE r.id = a.head_id), '')""",
    "tag": """coalesce((SELECT string_agg(value, ',') FROM jsonb_array_elements_text(
        CASE jsonb_typeof(a.tags) WHEN 'array' THEN a.tags ELSE '[]'::jsonb END)), '')""",
    "published_us": "(extract(epoch FROM coalesce(a.first_public_at, a.created_at)) * 1000000)::bigint",
    "updated_us": "(extract(epoch FROM a.updated_at) * 1000000)::bigint",
}
_NAMES_OF_ROW = ", ".join(_ROW)
_WRITE_ROWS = f"""
    INSERT INTO registry_searchrow AS known (adapter_id, {_NAMES_OF_ROW}, trending, usefulness, uses, changed_in)
    SELECT a.id, {", ".join(_ROW.values())}, 0, 0, 0, 0 FROM registry_adapter a WHERE %s
    ON CONFLICT (adapter_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ROW)}
    WHERE ({", ".join(f"known.{name}" for name in _ROW)})
        IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _ROW)})
"""  # noqa: S608 - column names of ours
_WRITE_TEXTS = f"""
    INSERT INTO registry_adaptertext AS known (adapter_id, names, about, card)
    SELECT a.id, left(n.name || ' ' || a.name, 400),
        concat_ws(' ', a.description, {TASK_TITLE}, coalesce(b.name, a.base_model_label),
            (SELECT string_agg(value, ' ') FROM jsonb_array_elements_text(
                CASE jsonb_typeof(a.tags) WHEN 'array' THEN a.tags ELSE '[]'::jsonb END))), ''
    FROM registry_adapter a JOIN registry_namespace n ON n.id = a.namespace_id
    LEFT JOIN registry_task t ON t.id = a.task_id LEFT JOIN registry_basemodel b ON b.id = a.base_model_id
    WHERE %s
    ON CONFLICT (adapter_id) DO UPDATE SET names = excluded.names, about = excluded.about
    WHERE (known.names, known.about) IS DISTINCT FROM (excluded.names, excluded.about)
"""  # noqa: S608 - words of ours

# Name -> (when it fires, what it does). Counters apart: they change far more often than anything else and need
# nothing of the rest.
_TRIGGERS = {
    "search_row_changed": (
        "BEFORE INSERT OR UPDATE ON registry_searchrow FOR EACH ROW",
        "NEW.changed_in := pg_current_xact_id()::text::bigint; RETURN NEW;",
    ),
    "search_row_gone": (
        "AFTER DELETE ON registry_searchrow FOR EACH STATEMENT",
        "UPDATE registry_searchclock SET epoch = epoch + 1; RETURN NULL;",
    ),
    "text_written": (
        "BEFORE INSERT OR UPDATE ON registry_adaptertext FOR EACH ROW",
        "IF TG_OP = 'INSERT' OR (OLD.names, OLD.about, OLD.card) IS DISTINCT FROM (NEW.names, NEW.about, NEW.card) "
        "THEN NEW.changed_in := pg_current_xact_id()::text::bigint; END IF; RETURN NEW;",
    ),
    "text_changed": (
        "AFTER UPDATE OF names, about, card ON registry_adaptertext FOR EACH ROW "
        "WHEN ((OLD.names, OLD.about, OLD.card) IS DISTINCT FROM (NEW.names, NEW.about, NEW.card))",
        "UPDATE registry_searchrow SET changed_in = 0 WHERE adapter_id = NEW.adapter_id; RETURN NULL;",
    ),
    "adapter_search_row_new": (
        "AFTER INSERT ON registry_adapter FOR EACH ROW",
        f"{_WRITE_ROWS % 'a.id = NEW.id'}; {_WRITE_TEXTS % 'a.id = NEW.id'}; RETURN NULL;",
    ),
    "adapter_search_row_said": (
        "AFTER UPDATE OF deleted_at, visibility, quarantined_at, namespace_id, base_model_id, task_id, is_composable, "
        "kind, rank, license, language, tags, head_id, size_bytes, created_at, first_public_at, updated_at, best_score "
        "ON registry_adapter FOR EACH ROW",
        f"{_WRITE_ROWS % 'a.id = NEW.id'}; RETURN NULL;",
    ),
    "adapter_search_counters": (
        "AFTER UPDATE OF downloads, likes ON registry_adapter FOR EACH ROW "
        "WHEN ((OLD.downloads, OLD.likes) IS DISTINCT FROM (NEW.downloads, NEW.likes))",
        "UPDATE registry_searchrow SET downloads = NEW.downloads, likes = NEW.likes WHERE adapter_id = NEW.id; "
        "RETURN NULL;",
    ),
    "adapter_text_said": (
        "AFTER UPDATE OF name, namespace_id, description, task_id, base_model_id, base_model_label, tags "
        "ON registry_adapter FOR EACH ROW",
        f"{_WRITE_TEXTS % 'a.id = NEW.id'}; RETURN NULL;",
    ),
    "namespace_text": (
        "AFTER UPDATE OF name ON registry_namespace FOR EACH ROW WHEN (OLD.name <> NEW.name)",
        f"{_WRITE_TEXTS % 'a.namespace_id = NEW.id'}; RETURN NULL;",
    ),
    "task_text": (
        f"AFTER UPDATE OF {TASK_COLUMNS} ON registry_task FOR EACH ROW WHEN ((OLD.title, OLD.is_private, "
        "OLD.quarantined_at) IS DISTINCT FROM (NEW.title, NEW.is_private, NEW.quarantined_at))",
        f"{_WRITE_TEXTS % 'a.task_id = NEW.id'}; RETURN NULL;",
    ),
    "base_text": (
        "AFTER UPDATE OF name ON registry_basemodel FOR EACH ROW WHEN (OLD.name <> NEW.name)",
        f"{_WRITE_TEXTS % 'a.base_model_id = NEW.id'}; RETURN NULL;",
    ),
}


class Postgres:
    def install(self, connection: Any) -> None:
        statements = [_DOCUMENTS, postings.TABLES]
        for name, (when, what) in _TRIGGERS.items():
            table = when.split(" ON ")[1].split()[0]
            statements.append(
                f"CREATE OR REPLACE FUNCTION registry_{name}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$body$ BEGIN {what} END $body$;"
                f"DROP TRIGGER IF EXISTS {name} ON {table};"
                f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION registry_{name}();"
            )
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def remove(self, connection: Any) -> None:
        """Nothing: a table is changed here, not rebuilt, and triggers stay on it."""

    def resync(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_WRITE_ROWS % "true")
            cursor.execute(_WRITE_TEXTS % "true")

    def now(self, connection: Any) -> tuple[int, int]:
        # Transactions before the oldest that still runs are over and seen by every later statement; those from it on
        # may come into sight at any time, so the next look begins there.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce((SELECT max(epoch) FROM registry_searchclock), -1), "
                "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
            )
            epoch, mark = cursor.fetchone()
        return epoch, mark

    def changes(self, connection: Any, since: int) -> Iterator[Batch]:
        if not since:
            yield from everything(connection)
            return
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(COLUMNS)} FROM registry_searchrow WHERE changed_in >= %s",  # noqa: S608
                [since],
            )
            if rows := cursor.fetchall():
                yield as_batch(rows)

    def with_word(
        self, connection: Any, word: str, *, names_only: bool = False, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        # A word is letters and digits alone (query.split), so that nothing in it means anything to to_tsquery or LIKE.
        wanted = postings.Wanted([word], f"{word}:*", names_only, "word LIKE %s", f"{word}%")
        return postings.who_has(connection, wanted, among=among)

    def with_any_of(
        self, connection: Any, words: Sequence[str], *, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        wanted = postings.Wanted(words, " | ".join(words), True, "word = ANY(%s)", list(words))
        return postings.who_has(connection, wanted, among=among)

    def name_words(self, connection: Any) -> list[str]:
        return postings.name_words(connection)

    def write_postings(self, connection: Any) -> bool:
        return postings.write(connection)

    def mend(self, connection: Any) -> None:
        """Of a dump that was read into another server: its transaction ids mean nothing here."""
        with connection.cursor() as cursor:
            for table in ("registry_searchrow", "registry_adaptertext"):
                cursor.execute(
                    f"UPDATE {table} SET changed_in = pg_current_xact_id()::text::bigint "  # noqa: S608
                    "WHERE changed_in > pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
                )
            cursor.execute(
                "DELETE FROM registry_postingmark WHERE mark > pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
            )
