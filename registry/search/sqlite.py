"""The search on SQLite: FTS5 for words, a counter for what has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.search.backends import COLUMNS, FETCHED_AT_ONCE, ROW, TASK_COLUMNS, TASK_TITLE, Batch, as_batch


def _micros(moment: str) -> str:
    whole = f"CAST(strftime('%s', {moment}) AS INTEGER) * 1000000"
    return f"({whole} + CAST(substr({moment} || '000000', 21, 6) AS INTEGER))"


# The rest of the search row: where the databases have words of their own.
_ROW = ROW | {
    "targets": """coalesce((SELECT substr(group_concat(value, ','), 1, 500) FROM (SELECT value FROM
        json_each((SELECT facts FROM registry_revision WHERE id = a.head_id), '$.target_names') ORDER BY value)), '')""",
    "tag": "coalesce((SELECT group_concat(value, ',') FROM json_each(a.tags)), '')",
    "published_us": _micros("coalesce(a.first_public_at, a.created_at)"),
    "updated_us": _micros("a.updated_at"),
}
_NAMES_OF_ROW = ", ".join(_ROW)
# "WHERE" stands before ON CONFLICT for SQLite's parser as well: without it, ON would belong to the FROM.
_WRITE_ROWS = f"""
    INSERT INTO registry_searchrow (adapter_id, {_NAMES_OF_ROW}, trending, usefulness, uses, changed_in)
    SELECT a.id, {", ".join(_ROW.values())}, 0, 0, 0, 0 FROM registry_adapter a WHERE @which
    ON CONFLICT (adapter_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _ROW)}
    WHERE ({", ".join(f"registry_searchrow.{name}" for name in _ROW)})
        IS NOT ({", ".join(f"excluded.{name}" for name in _ROW)})
"""  # noqa: S608 - column names of ours
_WRITE_TEXTS = f"""
    INSERT INTO registry_adaptertext (adapter_id, names, about, card)
    SELECT a.id, substr(n.name || ' ' || a.name, 1, 400), a.description || ' ' || {TASK_TITLE} || ' ' ||
        coalesce(b.name, a.base_model_label) || ' ' ||
        coalesce((SELECT group_concat(value, ' ') FROM json_each(a.tags)), ''), ''
    FROM registry_adapter a JOIN registry_namespace n ON n.id = a.namespace_id
    LEFT JOIN registry_task t ON t.id = a.task_id LEFT JOIN registry_basemodel b ON b.id = a.base_model_id
    WHERE @which
    ON CONFLICT (adapter_id) DO UPDATE SET names = excluded.names, about = excluded.about
    WHERE (registry_adaptertext.names, registry_adaptertext.about) IS NOT (excluded.names, excluded.about)
"""  # noqa: S608 - words of ours
_TICK = """UPDATE registry_searchclock SET number = number + 1;
    UPDATE registry_searchrow SET changed_in = (SELECT number FROM registry_searchclock)
    WHERE adapter_id = NEW.adapter_id;"""
_FORGET_WORDS = """
    INSERT INTO registry_words (registry_words, rowid, names, about, card)
    VALUES ('delete', OLD.adapter_id, OLD.names, OLD.about, OLD.card);
    INSERT INTO registry_namewords (registry_namewords, rowid, names) VALUES ('delete', OLD.adapter_id, OLD.names);"""
_LEARN_WORDS = """
    INSERT INTO registry_words (rowid, names, about, card) VALUES (NEW.adapter_id, NEW.names, NEW.about, NEW.card);
    INSERT INTO registry_namewords (rowid, names) VALUES (NEW.adapter_id, NEW.names);"""

_TABLES = [
    """CREATE VIRTUAL TABLE IF NOT EXISTS registry_words USING fts5(names, about, card,
        content='registry_adaptertext', content_rowid='adapter_id', tokenize="unicode61 remove_diacritics 0",
        prefix='2 3')""",
    "DROP TABLE IF EXISTS registry_likeness",  # of an earlier version
    # Names once more and alone, for the list of all words in them.
    """CREATE VIRTUAL TABLE IF NOT EXISTS registry_namewords USING fts5(names, content='registry_adaptertext',
        content_rowid='adapter_id', tokenize="unicode61 remove_diacritics 0")""",
    "CREATE VIRTUAL TABLE IF NOT EXISTS registry_nameterms USING fts5vocab('registry_namewords', 'row')",
]
_TRIGGERS = {
    "adapter_text_new": f"AFTER INSERT ON registry_adaptertext BEGIN {_LEARN_WORDS} END",
    "adapter_text_gone": f"AFTER DELETE ON registry_adaptertext BEGIN {_FORGET_WORDS} END",
    "adapter_text_other": f"""AFTER UPDATE OF names, about, card ON registry_adaptertext
        WHEN (OLD.names, OLD.about, OLD.card) IS NOT (NEW.names, NEW.about, NEW.card)
        BEGIN {_FORGET_WORDS} {_LEARN_WORDS} {_TICK} END""",
    "search_row_new": f"AFTER INSERT ON registry_searchrow BEGIN {_TICK} END",
    # Not of changed_in: writing that down is no change.
    "search_row_changed": f"""AFTER UPDATE OF {_NAMES_OF_ROW}, trending, usefulness, uses ON registry_searchrow
        BEGIN {_TICK} END""",
    "search_row_gone": """AFTER DELETE ON registry_searchrow
        BEGIN UPDATE registry_searchclock SET epoch = epoch + 1; END""",
    "adapter_search_row_new": f"""AFTER INSERT ON registry_adapter
        BEGIN {_WRITE_ROWS.replace("@which", "a.id = NEW.id")}; {_WRITE_TEXTS.replace("@which", "a.id = NEW.id")}; END""",
    "adapter_search_row_said": f"""AFTER UPDATE OF deleted_at, visibility, quarantined_at, namespace_id, base_model_id,
        task_id, is_composable, kind, rank, license, language, tags, head_id, size_bytes, created_at,
        first_public_at, updated_at, best_score
        ON registry_adapter BEGIN {_WRITE_ROWS.replace("@which", "a.id = NEW.id")}; END""",
    "adapter_search_counters": """AFTER UPDATE OF downloads, likes ON registry_adapter
        WHEN (OLD.downloads, OLD.likes) IS NOT (NEW.downloads, NEW.likes) BEGIN
        UPDATE registry_searchrow SET downloads = NEW.downloads, likes = NEW.likes WHERE adapter_id = NEW.id; END""",
    "adapter_text_said": f"""AFTER UPDATE OF name, namespace_id, description, task_id, base_model_id, base_model_label,
        tags ON registry_adapter BEGIN {_WRITE_TEXTS.replace("@which", "a.id = NEW.id")}; END""",
    "namespace_text": f"""AFTER UPDATE OF name ON registry_namespace WHEN OLD.name <> NEW.name
        BEGIN {_WRITE_TEXTS.replace("@which", "a.namespace_id = NEW.id")}; END""",
    "task_text": f"""AFTER UPDATE OF {TASK_COLUMNS} ON registry_task WHEN (OLD.title, OLD.is_private,
        OLD.quarantined_at) IS NOT (NEW.title, NEW.is_private, NEW.quarantined_at)
        BEGIN {_WRITE_TEXTS.replace("@which", "a.task_id = NEW.id")}; END""",
    "base_text": f"""AFTER UPDATE OF name ON registry_basemodel WHEN OLD.name <> NEW.name
        BEGIN {_WRITE_TEXTS.replace("@which", "a.base_model_id = NEW.id")}; END""",
}


class Sqlite:
    def install(self, connection: Any) -> None:
        self.remove(connection)
        with connection.cursor() as cursor:
            for table in _TABLES:
                cursor.execute(table)
            for name, what in _TRIGGERS.items():
                cursor.execute(f"CREATE TRIGGER registry_{name} {what}")

    def remove(self, connection: Any) -> None:
        """To change a table, Django makes it anew and drops the old one: triggers would go with it, or stop it."""
        with connection.cursor() as cursor:
            for name in _TRIGGERS:
                cursor.execute(f"DROP TRIGGER IF EXISTS registry_{name}")

    def resync(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_WRITE_ROWS.replace("@which", "true"))
            cursor.execute(_WRITE_TEXTS.replace("@which", "true"))
            for table in ("registry_words", "registry_namewords"):
                cursor.execute(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")  # noqa: S608

    def now(self, connection: Any) -> tuple[int, int]:
        # One writes at a time here, so numbers come into sight in their order.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(max(epoch), -1), coalesce(max(number), 0) + 1 FROM registry_searchclock"
            )
            epoch, mark = cursor.fetchone()
        return epoch, mark

    def changes(self, connection: Any, since: int) -> Iterator[Batch]:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(COLUMNS)} FROM registry_searchrow WHERE changed_in >= %s",  # noqa: S608
                [since],
            )
            while rows := cursor.fetchmany(FETCHED_AT_ONCE):
                yield as_batch(rows)

    def with_word(
        self, connection: Any, word: str, *, names_only: bool = False, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        asked = f'"{word}"*'
        return _ids(connection, "registry_words", f"names : ({asked})" if names_only else asked)

    def with_any_of(
        self, connection: Any, words: Sequence[str], *, among: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        return _ids(connection, "registry_namewords", " OR ".join(f'"{word}"' for word in words))

    def name_words(self, connection: Any) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT term FROM registry_nameterms WHERE term GLOB '*[^0-9]*'")
            return [term for (term,) in cursor.fetchall()]

    def write_postings(self, connection: Any) -> bool:
        """Nothing: FTS5 is quick enough for as many as one file holds."""
        return False

    def mend(self, connection: Any) -> None:
        """Nothing: the counter is in the file."""


def _ids(connection: Any, table: str, asked: str) -> NDArray[np.int64]:
    with connection.cursor() as cursor:
        # One text of all ids: a row for each would take longer than finding them.
        cursor.execute(
            f"SELECT coalesce(group_concat(rowid), '') FROM {table} WHERE {table} MATCH %s",  # noqa: S608
            [asked],
        )
        (ids,) = cursor.fetchone()
    return np.fromstring(ids, dtype=np.int64, sep=",")
