"""Reading few-shot sets: from rows, pasted text, JSON, JSON lines, CSV and TSV, every mistake in a sentence."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.conf import settings

from compose.engine.metrics import plain
from compose.engine.types import Example
from compose.engine.unseen import said_of_seen, unseen
from compose.engine.wording import first_of
from compose.errors import BadSetting, FewShotProblem
from web.templatetags.formatting import plural

INPUT_NAMES = (
    "input",
    "inputs",
    "question",
    "x",
    "source",
    "prompt",
    "text",
    "sentence",
    "query",
    "instruction",
)
OUTPUT_NAMES = ("output", "outputs", "answer", "y", "target", "targets", "completion", "response", "label")
FORMATS = ("auto", "rows", "jsonl", "json", "csv", "tsv")
MIN_ROWS_TO_SPLIT = 15
HELD_OUT_SHARE = 3  # one row in three
NO_EXAMPLES = "There are no examples. Give some rows, each with an input and an output."
_DELIMITERS = ("\t", ";", ",")
_NAMES = {"\t": "tab", ";": "semicolon", ",": "comma"}
_KINDS = {dict: "an object", list: "a list", bool: "true or false", type(None): "empty (null)"}


def parse_examples(
    data: str | bytes | Sequence[Any], format: str = "auto", *, field: str = "examples", is_part: bool = False
) -> list[Example]:
    """The examples in `data`, in their order. Raises FewShotProblem, which names the rows with mistakes.

    `data` is text in one of the FORMATS, a file's bytes, or a list of rows as JSON gives it. `field` is the
    input that the problems are reported for, "examples", "test_examples" or a task's "rows"; `is_part`: others may
    come beside them.
    """
    try:
        examples = _read_rows(_rows(data, format), field)
        _check_count(len(examples), field, is_part=is_part)
    except FewShotProblem as problem:
        raise FewShotProblem(problem.problems, field=field) from problem
    return examples


def check_examples(examples: Sequence[Example], *, field: str = "examples") -> None:
    """Raises FewShotProblem if these examples, wherever they come from, cannot be used."""
    problems = [
        problem
        for number, example in enumerate(examples, 1)
        for problem in _text_problems(number, example.input, example.output)
    ]
    if problems:
        raise FewShotProblem(problems, field=field)
    _check_count(len(examples), field)


def split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example], str]:
    """Few-shot rows, held-out rows, and a sentence that says which; no held-out rows when there are too few.

    `seed` draws the held-out third. Rows with the same input stay on one side, or the score would be of what
    the search has seen. Both parts keep the order of `examples`.
    """
    inputs = list(dict.fromkeys(example.input.strip() for example in examples))
    if len(inputs) < MIN_ROWS_TO_SPLIT:
        return list(examples), [], unscored_note(len(examples), len(inputs))
    drawn = set(random.Random(seed).sample(inputs, len(inputs) // HELD_OUT_SHARE))  # noqa: S311 - repeatable, not secret
    few_shot = [example for example in examples if example.input.strip() not in drawn]
    held_out = [example for example in examples if example.input.strip() in drawn]
    note = (
        f"{len(held_out)} of the {len(examples)} examples, drawn by seed {seed}, are held out for scoring; "
        f"the search sees the other {len(few_shot)}."
    )
    return few_shot, held_out, note


def divide(
    examples: Sequence[Example], *, shown: int, seed: int, seen: Collection[str] = ()
) -> tuple[list[Example], list[Example]]:
    """A task's rows as (those that everybody sees, those that stay hidden), both in the order of `examples`.

    `seed` draws the shown ones until there are `shown` of them. Rows with the same input stay on one side, so these
    may be a few more; those whose input is among `seen` are known already and are never hidden.
    """
    inputs = list(dict.fromkeys(example.input.strip() for example in examples))
    counts = Counter(example.input.strip() for example in examples)
    known = {text.strip() for text in seen}
    chosen = {text for text in inputs if text in known}
    count = sum(counts[text] for text in chosen)
    others = [text for text in inputs if text not in chosen]
    random.Random(seed).shuffle(others)  # noqa: S311 - repeatable, and told nobody without the rows
    for text in others:
        if count >= shown:
            break
        chosen.add(text)
        count += counts[text]
    is_shown = [example.input.strip() in chosen for example in examples]
    return (
        [example for example, open in zip(examples, is_shown, strict=True) if open],
        [example for example, open in zip(examples, is_shown, strict=True) if not open],
    )


def unscored_note(count: int, inputs: int) -> str:
    """For so many examples with so many different inputs."""
    verb = "is" if count == 1 else "are"
    alike = f" with {plural(inputs, 'different input,different inputs')}" if inputs < count else ""
    instead = (
        "The result gives a leave-one-out estimate instead."
        if inputs > 1
        else "There is no estimate either: what has one input cannot be both shown and left out."
    )
    return (
        f"Unscored: {plural(count, 'example,examples')}{alike} {verb} too few to hold some out ({MIN_ROWS_TO_SPLIT} "
        f"different ones are needed) and there are no test rows. {instead}"
    )


def warnings(
    examples: Sequence[Example], test_examples: Sequence[Example] = (), *, numbers: Sequence[str] = ()
) -> list[str]:
    """What is allowed and still worth saying: rows that are there twice, or contradict, or leak into the test.

    `numbers` are what the examples are called where they stand; without them they are counted from 1.
    """
    found = []
    named = list(zip(numbers or range(1, len(examples) + 1), examples, strict=True))
    if _begins_with_a_header(examples):
        number, first = named[0]
        found.append(
            f"Row {number} (“{first.input}”, “{first.output}”) looks like the names of columns. Leave it out if it is no example."
        )
    counts = Counter((example.input, example.output) for example in examples)
    rows = [number for number, e in named if counts[e.input, e.output] > 1]
    if rows:
        found.append(f"Rows {first_of(rows, most=8)} are duplicates; each counts as often as it is there.")
    answers: dict[str, set[str]] = {}
    for example in examples:
        answers.setdefault(example.input, set()).add(example.output)
    rows = [number for number, example in named if len(answers[example.input]) > 1]
    if rows:
        found.append(f"Rows {first_of(rows, most=8)} have the same input and different outputs.")
    spelt: dict[str, dict[str, None]] = {}  # in their order, as a set is not
    for example in examples:
        spelt.setdefault(plain(example.output), {})[example.output.strip()] = None
    unlike = (
        " and ".join(f"“{text[:40]}”" for text in list(each)[:2]) for each in spelt.values() if len(each) > 1
    )
    if said := first_of(unlike, most=3):
        found.append(f"Outputs differ in capitals or full stops alone, which no score tells apart: {said}.")
    counts = Counter((example.input, example.output) for example in test_examples)
    if alike := sum(count for count in counts.values() if count > 1):
        found.append(f"{alike} of the test rows are duplicates; each counts as often as it is there.")
    if seen := len(test_examples) - len(unseen(test_examples, examples)):
        found.append(said_of_seen(seen))
    return found


def _begins_with_a_header(examples: Sequence[Example]) -> bool:
    """One word each, where the other inputs are texts: a header whose names are not known here."""
    if len(examples) < 3 or any(
        len(text.split()) != 1 or not text.isalpha() for text in (examples[0].input, examples[0].output)
    ):
        return False
    return all(len(example.input.split()) > 2 for example in examples[1:])


def as_json(examples: Iterable[Example]) -> list[dict[str, str]]:
    return [{"input": example.input, "output": example.output} for example in examples]


def from_json(rows: Iterable[dict[str, str]]) -> list[Example]:
    return [Example(row["input"], row["output"]) for row in rows]


# --- text into rows ------------------------------------------------------------------------------------------


def _rows(data: str | bytes | Sequence[Any], format: str) -> list[Any]:
    """The rows of `data`, each still as it was written: an object, a pair, or anything else."""
    if format not in FORMATS:
        raise BadSetting("format", f"{format[:40]!r} is not a format; choose one of {', '.join(FORMATS)}.")
    if not isinstance(data, str | bytes):
        return list(data)
    text = _decode(data)
    if not text.strip():
        raise FewShotProblem(NO_EXAMPLES)
    if format in {"json", "jsonl", "rows"}:
        return _json_rows(text)
    if format in {"csv", "tsv"}:
        return _table_rows(text, "\t" if format == "tsv" else None)
    if text.lstrip()[0] not in "[{":
        return _table_rows(text, None)
    try:
        return _json_rows(text)
    except FewShotProblem:
        # Texts may begin with a bracket too.
        if any(line.count("\t") != 1 for line in text.split("\n") if line.strip()):
            raise
        return _table_rows(text, "\t")


def _decode(data: str | bytes) -> str:
    """`data` as text with plain line ends. Raises FewShotProblem for what is no text, and for too much of it."""
    limit = settings.MAX_EXAMPLE_SET_BYTES
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise FewShotProblem(
            f"The examples have {size:,} bytes; at most {limit:,} are read. Leave some rows out."
        )
    if isinstance(data, bytes):
        data = _decode_bytes(data)
    return data.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _decode_bytes(data: bytes) -> str:
    if data.startswith(b"PK\x03\x04"):
        raise FewShotProblem(
            "This is a spreadsheet or zip file, not text. Save it as “CSV UTF-8” and give that file."
        )
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FewShotProblem(
            f"Line {line} is not UTF-8 text (byte 0x{data[error.start]:02x}). Save the file as UTF-8, in a "
            "spreadsheet as “CSV UTF-8”."
        ) from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise FewShotProblem(
            f"Line {line} holds a NUL byte, so this is a binary file, not text. Give CSV, TSV or JSON lines."
        )
    return text


def _json_rows(text: str) -> list[Any]:
    """One JSON list, an object that holds one, or one object a line."""
    try:
        whole = _loads(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            raise FewShotProblem(f"The JSON list cannot be read: {error}.") from error
        return _json_lines(text)
    if isinstance(whole, dict):
        lists = [value for name, value in whole.items() if name in {"examples", "data", "rows"}]
        return lists[0] if lists and isinstance(lists[0], list) else [whole]
    if isinstance(whole, list):
        return whole
    raise FewShotProblem("This JSON holds no rows. Write one object a line, with “input” and “output”.")


def _json_lines(text: str) -> list[Any]:
    rows = []
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(_loads(line))
        except ValueError as error:
            problems.append(
                f"Line {number} is not JSON: {error}. Write one object a line, with “input” and “output”."
            )
    if problems:
        raise FewShotProblem(problems)
    return rows


def _loads(text: str) -> Any:
    """`json.loads`, with every way to fail as one ValueError with a short text."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _table_rows(text: str, delimiter: str | None) -> list[Any]:
    """CSV or TSV, with a header or with exactly two columns. `delimiter` None: found out."""
    chosen = delimiter or _find_delimiter(text)
    if chosen is None:
        raise FewShotProblem(
            "Row 1 has an input and no output. Separate the two by a tab, a comma or a semicolon, or give JSON lines."
        )
    records = _records(text, chosen)
    if not records:  # nothing but separators
        raise FewShotProblem(NO_EXAMPLES)
    header = [cell.strip().lower() for cell in records[0]]
    input_column = _column(header, INPUT_NAMES)
    output_column = _column(header, OUTPUT_NAMES)
    if input_column is None and output_column is None:
        return _headless(records, chosen)
    if input_column is None or output_column is None:
        missing = "input" if input_column is None else "output"
        names = ", ".join(f"“{cell[:40]}”" for cell in header)
        raise FewShotProblem(
            f"The header has the columns {names} and none for the {missing}. Name one “{missing}”."
        )
    return [
        _pick(record, number, input_column, output_column) for number, record in enumerate(records[1:], 1)
    ]


def _find_delimiter(text: str) -> str | None:
    """The one whose header we know; else one that always makes two cells; else one that makes more than one."""
    first = {}
    for delimiter in _DELIMITERS:
        try:
            records = _records(text, delimiter, limit=50)
        except FewShotProblem:
            continue
        if records:
            first[delimiter] = records
    for delimiter, records in first.items():
        header = [cell.strip().lower() for cell in records[0]]
        if len(header) > 1 and (
            _column(header, INPUT_NAMES) is not None or _column(header, OUTPUT_NAMES) is not None
        ):
            return delimiter
    for delimiter, records in first.items():
        if all(len(record) == 2 for record in records):
            return delimiter
    for delimiter in _DELIMITERS:
        if delimiter in text:
            return delimiter
    return None


def _records(text: str, delimiter: str, limit: int | None = None) -> list[list[str]]:
    """The records that are not blank, quoted cells with their line breaks. Raises FewShotProblem."""
    csv.field_size_limit(settings.MAX_EXAMPLE_SET_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[list[str]] = []
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append(record)
            if len(records) == limit:
                break
    except csv.Error as error:
        if delimiter == "\t":  # cells copied from elsewhere may begin with a quotation mark that is just one
            return [line.split("\t") for line in text.split("\n") if line.strip()][:limit]
        raise FewShotProblem(
            f"Line {reader.line_num} cannot be read as {_NAMES[delimiter]}-separated text ({error}). A cell that "
            "holds quotation marks or line breaks is put in quotation marks, and those inside it are doubled."
        ) from error
    return records


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    for name in names:
        if name in header:
            return header.index(name)
    return None


def _headless(records: list[list[str]], delimiter: str) -> list[Any]:
    # Not the columns that a spreadsheet gave along and that hold nothing.
    width = max(number for record in records for number, cell in enumerate(record, 1) if cell.strip())
    records = [record[: max(2, width)] for record in records]
    problems = [
        f"Row {number} has {len(record)} {_NAMES[delimiter]}-separated cell{'s' if len(record) > 1 else ''}; without a "
        "header each row needs two, the input and the output."
        for number, record in enumerate(records, 1)
        if len(record) != 2
    ]
    if problems:
        raise FewShotProblem(problems)
    return [[cell.strip() for cell in record] for record in records]


def _pick(record: list[str], number: int, input_column: int, output_column: int) -> list[str]:
    if max(input_column, output_column) >= len(record):
        # A short record ends before the column; the missing cell is an empty one.
        record = [*record, *[""] * (max(input_column, output_column) + 1 - len(record))]
    return [record[input_column].strip(), record[output_column].strip()]


# --- rows into examples --------------------------------------------------------------------------------------


def _read_rows(rows: list[Any], field: str) -> list[Example]:
    if len(rows) > settings.MAX_TEST_EXAMPLES:  # too many for either use: no need to read them
        _check_count(len(rows), field)
    examples = []
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            source, target = _pair(row, number)
        except FewShotProblem as problem:
            problems += problem.problems
            continue
        problems += _text_problems(number, source, target)
        examples.append(Example(source, target))
    if problems:
        raise FewShotProblem(problems)
    return examples


def _pair(row: Any, number: int) -> tuple[str, str]:
    if isinstance(row, Example):
        return row.input, row.output
    if isinstance(row, list | tuple) and len(row) == 2:
        return _as_text(row[0], number, "input"), _as_text(row[1], number, "output")
    if not isinstance(row, dict):
        raise FewShotProblem(f"Row {number} is not an object with “input” and “output”.")
    keys = {str(key).strip().lower(): value for key, value in row.items()}
    source = next((name for name in INPUT_NAMES if name in keys), None)
    target = next((name for name in OUTPUT_NAMES if name in keys), None)
    if source is None or target is None:
        raise FewShotProblem(_wrong_keys(row, number, source, target))
    text = _as_text(keys[source], number, "input")
    if source == "input" and keys.get("instruction"):  # Alpaca's three columns
        text = f"{_as_text(keys['instruction'], number, 'instruction')}\n{text}".strip()
    return text, _as_text(keys[target], number, "output")


def _wrong_keys(row: dict[Any, Any], number: int, source: str | None, target: str | None) -> str:
    if source is not None and len(row) == 1:
        return f"Row {number} has an input and no output."
    if target is not None and len(row) == 1:
        return f"Row {number} has an output and no input."
    names = ", ".join(f"“{str(key)[:40]}”" for key in list(row)[:6]) or "no keys"
    missing = " and ".join(
        f"“{name}”" for name, found in (("input", source), ("output", target)) if found is None
    )
    return f"Row {number} has {names} where {missing} {'is' if source or target else 'are'} needed."


def _as_text(value: Any, number: int, name: str) -> str:
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    kind = _KINDS.get(type(value), "no text")
    raise FewShotProblem(f"Row {number}: the {name} is {kind}; write it as text.")


def _text_problems(number: int, source: str, target: str) -> list[str]:
    problems = []
    for name, text in (("input", source), ("output", target)):
        size = len(text.encode("utf-8", "surrogatepass"))
        if not text.strip():
            problems.append(f"Row {number} has no {name}.")
        elif "\x00" in text:
            problems.append(f"Row {number}: the {name} holds a NUL character; take it out.")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(
                f"Row {number}: the {name} holds half of a surrogate pair, which is no character."
            )
        elif size > settings.MAX_EXAMPLE_BYTES:
            problems.append(
                f"Row {number}: the {name} has {size:,} bytes; at most {settings.MAX_EXAMPLE_BYTES:,} are allowed."
            )
    return problems


def _check_count(count: int, field: str, *, is_part: bool = False) -> None:
    is_test = field in {"test_examples", "rows"}
    most = settings.MAX_TEST_EXAMPLES if is_test else settings.MAX_FEW_SHOT_EXAMPLES
    least = 1 if is_test or is_part else settings.MIN_FEW_SHOT_EXAMPLES
    if not count:
        raise FewShotProblem(NO_EXAMPLES, field=field)
    if count < least:
        raise FewShotProblem(f"A composition needs at least {least} examples; you gave {count}.", field=field)
    if count > most:
        raise FewShotProblem(
            f"You gave {count:,} rows; at most {most:,} are used. Choose which ones.", field=field
        )
