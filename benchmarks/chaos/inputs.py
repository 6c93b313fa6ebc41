"""Input that is wrong in a thousand ways, in this process: mutated weight files, odd texts for searches and few-shot sets."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.chaos.stage import Outcome, Stage, Trial, token_of, world

GOOD_FILES = 10
MOST_CUT = 1024


# --- F4 ------------------------------------------------------------------------------------------------------


def mutated(good: bytes, generator: random.Random, number: int) -> bytes:
    """A good file with bits flipped, cut at one of its first bytes, or with another header."""
    kind = number % 4
    content = bytearray(good)
    end = 8 + int.from_bytes(good[:8], "little")
    if kind == 0:
        for _ in range(generator.randint(1, 8)):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif kind == 1:
        return bytes(content[: (number // 4) % MOST_CUT])
    elif kind == 2:
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(min(end, len(content)))] = generator.choice(
                b'{}[]",:0919-eE\\ \x00\xff'
            )
    else:
        return _other_header(good[8:end], good[end:], generator)
    return bytes(content)


def _other_header(raw: bytes, body: bytes, generator: random.Random) -> bytes:
    header = json.loads(raw)
    names = [name for name in header if name != "__metadata__"]
    tensor = header[generator.choice(names)]
    match generator.randrange(7):
        case 0:
            tensor["dtype"] = generator.choice(["F8", "BOOL", "I64", "BF16", "C64", "", None, 3])
        case 1:
            tensor["shape"] = generator.choice([[], [0], [-1, 2], [2**62, 4], [2.5], "8", [[1]], None])
        case 2:
            tensor["data_offsets"] = generator.choice(
                [[0, 0], [8, 0], [-1, 8], [0, 2**63], [0], None, [0.0, 8.0]]
            )
        case 3:
            header[generator.choice(["", "a\x00b", "x" * 3000, "base_model.model.lm_head.weight"])] = dict(
                tensor
            )
        case 4:
            header["__metadata__"] = generator.choice([{"a": 1}, [], None, {"a": "b" * 5000}])
        case 5:
            tensor["more"] = "x"
        case 6:
            del header[generator.choice(names)]
    changed = json.dumps(header).encode()
    size = len(changed) + generator.choice([0, 0, 0, 1, -1, 2**40])
    return max(size, 0).to_bytes(8, "little") + changed + body


def mutated_files(stage: Stage) -> Outcome:
    """ten good weight files with flipped bits, cuts at each of their first 1,024 bytes and other headers, inspected"""
    from safetensors import SafetensorError, safe_open

    from registry.errors import InspectionRefused
    from registry.inspection import inspect_folder
    from tests.fake_adapters import files_of, make_adapter

    sorts: list[dict[str, Any]] = [
        {"dtype": dtype, "rank": rank} for dtype in ("F32", "F16", "BF16") for rank in (1, 2, 8)
    ]
    sorts.append({"targets": ("q", "k", "v", "o")})
    good = [make_adapter(stage.folder / f"good-{n}", seed=n, **sort) for n, sort in enumerate(sorts)]
    contents = [(folder / "adapter_model.safetensors").read_bytes() for folder in good]
    wrong: list[str] = []
    took: list[float] = []
    accepted = 0
    count = stage.times(10_000)
    for number in range(count):
        folder = good[number % GOOD_FILES]
        file = folder / "adapter_model.safetensors"
        file.write_bytes(mutated(contents[number % GOOD_FILES], stage.generator, number // GOOD_FILES))
        began = time.process_time()
        try:
            inspect_folder(files_of(folder))
        except InspectionRefused as refused:
            is_in = False
            if not refused.problems:
                wrong.append(f"{number}: refused without a word")
        except Exception as error:  # anything else is what this looks for
            wrong.append(f"{number}: {type(error).__name__}: {error}"[:200])
            continue
        else:
            is_in = True
            accepted += 1
        took.append(1000 * (time.process_time() - began))
        if is_in and not _library_reads(file, safe_open, SafetensorError):
            wrong.append(f"{number}: accepted, and the library does not read it")
    p99 = sorted(took)[int(0.99 * len(took))]
    if p99 > 50:
        wrong.append(f"p99 {p99:.0f} ms of processor time")
    return Outcome(
        count,
        wrong,
        f"{accepted} accepted, all of them read by the library, the rest refused in words; p99 {p99:.0f} ms",
    )


def _library_reads(path: Path, safe_open: Any, error: type[Exception]) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                file.get_slice(name).get_shape()
    except (error, OSError, ValueError, OverflowError):
        return False
    return True


# --- F35, F36 ------------------------------------------------------------------------------------------------

TEXTS = [
    *("", " ", "\t", "\n", "\r\nX-Y: z", "\x00", "a\x00b", "\ufeff", "\u202e", "\u200b", "\ud7ff", "e\u0301" * 500, "😀" * 300),
    *("a & | b", "a:*", "!", "((", "'", "''", '"', "\\", "\\'", "%", "_", "%\\_%", "a <-> b", "a' OR '1'='1", "; DROP TABLE x; --"),
    *("~ '('", "(a+)+$", "[", ".*", "^", "x{1000000}", "NEAR(a b)", "a*", '"a" AND', "AND", "NOT", "col:word", "rank MATCH x"),
    *("x" * 10_000, "word " * 3000, "é" * 5000, "\u0130\u0131\u1e9e", "\u2028", "1e999", "-1", str(2**70), "NaN", "Infinity", "-0"),
    *("null", "[]", "{}", "<script>", "{{ 7*7 }}", "{% debug %}", "%s%n", "../../etc/passwd", "%2e%2e%2f", "//", "http://[::1", "@"),
    *("owner__password", "namespace__memberships__user__password", "-pk", "?", "&", "#", "a=b", "0x1F", "٣", "true", "\x7f", "\x1b[31m"),
]  # fmt: skip
PLACES = [
    *("/modules?q={}", "/modules?task={}", "/modules?base={}", "/modules?sort={}", "/modules?cursor={}", "/modules?limit={}"),
    *("/api/v1/adapters/?q={}", "/api/v1/adapters/?sort={}", "/api/v1/adapters/?ordering={}", "/api/v1/adapters/?limit={}"),
    *("/api/v1/adapters/?cursor={}", "/api/v1/adapters/?rank={}", "/api/v1/adapters/?{}=1", "/tasks?q={}", "/api/v1/tasks/?q={}"),
    *("/api/v1/base-models/?q={}", "/base-models?q={}", "/api/models?search={}", "/api/models?author={}", "/api/models?filter={}"),
    *("/api/models?sort={}", "/api/models?limit={}", "/api/models?cursor={}", "/hashes?sha256={}", "/compose/candidates?filter={}"),
    *("/person-1?q={}", "/api/v1/compositions/?cursor={}", "/compositions?page={}"),
]  # fmt: skip


def odd_searches(stage: Stage) -> Outcome:
    """every search, filter, order and page number of pages, API and Hub with strings that break queries"""
    from django.test import Client

    _, people = world()
    secrets = [str(people[0].password), str(people[0].email or "nobody@nowhere")]
    client = Client(
        SERVER_NAME="localhost",
        raise_request_exception=False,
        headers={"Authorization": f"Bearer {token_of(people[0])}"},
    )
    client.force_login(people[0], backend="django.contrib.auth.backends.ModelBackend")
    everything = [(place, text) for place in PLACES for text in TEXTS]
    chosen = stage.generator.sample(everything, min(len(everything), stage.times(len(everything))))
    wrong, slowest = [], 0.0
    client.get("/modules")
    for place, text in chosen:
        began = time.process_time()
        answer = client.get(place.format(quote(text, safe="")))
        seconds = time.process_time() - began
        slowest = max(slowest, seconds)
        body = answer.content.decode(errors="replace")
        if answer.status_code >= 500 or any(secret in body for secret in secrets):
            wrong.append(f"{place} with {text[:30]!r}: {answer.status_code}")
        if seconds > 1:
            wrong.append(f"{place} with {text[:30]!r}: {seconds:.1f} s")
    return Outcome(
        len(chosen),
        wrong,
        f"{len(TEXTS)} strings at {len(PLACES)} places, 0 errors of ours; slowest {slowest:.2f} s of processor time",
    )


def few_shot_cases() -> Iterator[tuple[str, Any, str]]:
    """What it is, the examples as the API takes them, and their format."""
    for text in TEXTS:
        yield f"text {text[:20]!r}", text, "auto"
    for text in TEXTS[:40]:
        yield f"input {text[:20]!r}", [{"input": text, "output": "a"}] * 3, "auto"
        yield f"output {text[:20]!r}", [{"input": f"q{n}", "output": text} for n in range(3)], "auto"
    row = {"input": "q", "output": "a"}
    odd: list[Any] = [
        *([], {}, None, 3, True, [[]], [None], [1], ["a"], [{}], [{"input": "q"}], [{"output": "a"}]),
        *([{**row, "more": 1}], [row] * 1000, [{"input": "q" * 40_000, "output": "a"}] * 3, [{"input": {}, "output": []}] * 3),
        *([{"input": 2**70, "output": -0.0}] * 3, [{"input": None, "output": None}] * 3, {"input": "q", "output": "a"}),
    ]  # fmt: skip
    for value in odd:
        yield f"value {str(value)[:30]}", value, "auto"
    tables = [
        *("input,output\n=1+1,@x\n-a,+b\n", 'input,output\n"open', "input\toutput\na\tb\n", "a,b,c\n1,2,3\n"),
        *("input,output\n" + "x" * 200_000, 'input,output\n"' + "y" * 140_000 + '",z', "\ufeffinput,output\na,b\nc,d\n"),
        *("input,output\n" * 3, ",\n" * 50, "\n" * 5000, '{"input": "a", "output": "b"}\n' * 3, '{"input": "a"\n'),
        *("[" * 100_000, '{"a":' * 50_000, '[{"input": "\\ud800", "output": "b"}]', "- input: a\n  output: b\n"),
        *('{"input": 1e999, "output": "b"}\n{"input": 1, "output": 2}', "&a [*a, *a]", "!!python/object:os.system x"),
    ]  # fmt: skip
    for text in tables:
        for text_format in ("auto", "csv", "jsonl", "json"):
            yield f"{text_format} {text[:20]!r}", text, text_format


def odd_examples(stage: Stage) -> Outcome:
    """few-shot sets that are odd or hostile, by the API (a dry run) and by the form's check and its file"""
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test import Client

    base_model, people = world()
    client = Client(SERVER_NAME="localhost", raise_request_exception=False)
    client.force_login(people[0], backend="django.contrib.auth.backends.ModelBackend")
    script = Client(
        SERVER_NAME="localhost",
        raise_request_exception=False,
        headers={"Authorization": f"Bearer {token_of(people[0])}"},
    )
    cases = list(few_shot_cases())
    chosen = stage.generator.sample(cases, min(len(cases), stage.times(len(cases))))
    wrong, slowest, sent = [], 0.0, 0
    for what, examples, text_format in chosen:
        body = json.dumps(
            {"base_model": base_model.name, "examples": examples, "format": text_format, "dry_run": True}
        )
        text = examples if isinstance(examples, str) else json.dumps(examples)
        raw = text.encode("utf-8", "surrogatepass")
        acts = [
            lambda body=body: script.post("/api/v1/compositions/", body, "application/json"),
            lambda text=text: client.post(
                "/compose/check", {"base_model": base_model.name, "examples_text": text}
            ),
            lambda raw=raw: client.post(
                "/compose",
                {
                    "base_model": base_model.name,
                    "action": "check",
                    "examples_file": SimpleUploadedFile("e.csv", raw),
                },
            ),
        ]
        for act in acts:
            began = time.process_time()
            answer = act()
            seconds = time.process_time() - began
            sent += 1
            slowest = max(slowest, seconds)
            if answer.status_code >= 500:
                wrong.append(f"{what}: {answer.status_code}")
            if seconds > 5:
                wrong.append(f"{what}: {seconds:.1f} s")
    return Outcome(
        sent,
        wrong,
        f"{len(chosen)} cases by three ways, 0 errors of ours; slowest {slowest:.2f} s of processor time",
    )


TRIALS: dict[str, Trial] = {"F4": mutated_files, "F35": odd_examples, "F36": odd_searches}
