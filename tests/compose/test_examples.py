"""Reading few-shot sets: what is understood, and the sentence for every mistake, in the domain and over REST."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from typing import Any

import pytest
from rest_framework.test import APIClient

from compose.engine.types import Example
from compose.errors import BadSetting, FewShotProblem
from compose.examples import parse_examples, split, warnings
from compose.models import Candidate, Composition
from tests.compose.factories import make_examples, make_modules
from tests.factories import make_base_model, make_token, make_user

EXPECTED = [Example("a cat", "animal"), Example("red", "colour")]


# --- what is understood


@pytest.mark.parametrize(
    "data",
    [
        [{"input": "a cat", "output": "animal"}, {"input": "red", "output": "colour"}],
        [["a cat", "animal"], ["red", "colour"]],
        [{"Question": "a cat", "ANSWER": "animal"}, {"x": "red", "y": "colour"}],
        [{"id": 1, "inputs": "a cat", "targets": "animal"}, {"source": "red", "target": "colour", "n": None}],
        '[{"input": "a cat", "output": "animal"}, {"input": "red", "output": "colour"}]',
        '{"examples": [{"input": "a cat", "target": "animal"}, {"input": "red", "target": "colour"}]}',
        '{"input": "a cat", "output": "animal"}\n\n{"input": "red", "output": "colour"}\n',
        '\ufeff{"input": "a cat", "output": "animal"}\r\n{"input": "red", "output": "colour"}\r\n',
        "input,output\na cat,animal\nred,colour\n",
        "output,input\nanimal,a cat\ncolour,red\n",
        "Input;Output\r\na cat;animal\r\nred;colour\r\n",
        "id;question;note;answer\n1;a cat;;animal\n2;red;;colour",
        "input\toutput\na cat\tanimal\nred\tcolour\n",
        "a cat\tanimal\nred\tcolour",
        "a cat,animal\nred,colour",
        "a cat;animal\nred;colour\n\n",
        '"a cat","animal"\n"red","colour"',
        "x, y\na cat, animal\nred, colour",
        b"\xef\xbb\xbfinput;output\na cat;animal\nred;colour\n",
        "input,output\na cat,animal\nred,colour\n".encode("utf-16"),
        "a cat\tanimal\t\nred\tcolour\t \n",
        "a cat,animal,,\n,,,\nred,colour",
    ],
)
def test_the_same_two_rows_in_every_dress(data):
    assert parse_examples(data) == EXPECTED


def test_a_cell_may_hold_line_breaks_quotes_and_separators():
    text = 'input,output\n"one\r\ntwo, ""three""",yes\n"four",no\n'
    assert parse_examples(text) == [Example('one\ntwo, "three"', "yes"), Example("four", "no")]


def test_a_lone_quotation_mark_does_not_break_tab_separated_text():
    assert parse_examples('"Hi" she said\tgreeting\n"Bye\tfarewell')[1] == Example('"Bye', "farewell")


def test_numbers_are_taken_as_they_are_written():
    assert parse_examples([{"input": "2+2", "output": 4}, {"input": "1/2", "output": 0.5}]) == [
        Example("2+2", "4"),
        Example("1/2", "0.5"),
    ]


def test_an_instruction_beside_the_input_is_kept():
    rows = [{"instruction": "Name it.", "input": "a cat", "output": "animal"}] * 2
    assert parse_examples(rows)[0] == Example("Name it.\na cat", "animal")


def test_text_in_a_stated_format_is_read_as_that():
    assert parse_examples("[a] b,c\n[d] e,f", "csv") == [Example("[a] b", "c"), Example("[d] e", "f")]
    with pytest.raises(BadSetting, match="'xlsx' is not a format"):
        parse_examples("a,b", "xlsx")


def test_any_text_goes_through_json_lines_unchanged():
    strange = [Example("emoji 🦊 \u2028 tab\t“quotes”", "  spaces  "), Example("a\nb", "ʼn")]
    lines = "\n".join(json.dumps({"input": e.input, "output": e.output}) for e in strange)
    assert parse_examples(lines) == strange


def test_texts_that_begin_with_a_bracket_are_no_broken_json():
    rows = [Example("[ ( {", "} ) ]"), Example("{ x }", "[x]")]
    assert parse_examples("\n".join(f"{row.input}\t{row.output}" for row in rows)) == rows


# --- every mistake

MISTAKES: list[tuple[str, Any, str]] = [
    ("empty text", " \n ", "There are no examples. Give some rows, each with an input and an output."),
    ("empty list", [], "There are no examples."),
    ("only a header", "input,output\n", "There are no examples."),
    ("one row", [{"input": "a", "output": "b"}], "A composition needs at least 2 examples; you gave 1."),
    ("no outputs", [{"input": "a"}, {"input": "b"}], "Row 1 has an input and no output. (1 more problem like this.)"),
    ("only inputs as lines", "first thing\nsecond thing", "Row 1 has an input and no output."),
    ("empty output", [{"input": "a", "output": "b"}, {"input": "c", "output": "  "}], "Row 2 has no output."),
    ("empty input", "input,output\na,b\n,d\n", "Row 2 has no input."),
    ("missing cell", "input,output\na,b\nc\n", "Row 2 has no output."),
    ("wrong keys", [{"foo": "a", "bar": "b"}] * 2, "Row 1 has “foo”, “bar” where “input” and “output” are needed."),
    ("one wrong key", [{"input": "a", "bar": "b"}] * 2, "Row 1 has “input”, “bar” where “output” is needed."),
    ("wrong header", "question,remark\na,b\n", "The header has the columns “question”, “remark” and none for the output."),
    ("three cells", "a,b,c\nd,e,f\n", "Row 1 has 3 comma-separated cells; without a header each row needs two"),
    ("not an object", [5, 6], "Row 1 is not an object with “input” and “output”."),
    ("a list as output", [{"input": "a", "output": ["b"]}] * 2, "Row 1: the output is a list; write it as text."),
    ("null", [{"input": None, "output": "b"}] * 2, "Row 1: the input is empty (null); write it as text."),
    ("true", [{"input": "a", "output": True}] * 2, "Row 1: the output is true or false; write it as text."),
    ("broken line", '{"input": "a", "output": "b"}\n{"input": "c"', "Line 2 is not JSON: expecting ',' delimiter"),
    ("broken list", '[{"input": "a"', "The JSON list cannot be read: expecting ',' delimiter at column 15."),
    ("nested deeply", "[" * 100_000, "The JSON list cannot be read: it is nested too deeply."),
    ("NaN", '{"input": "a", "output": NaN}', "Line 1 is not JSON: NaN is not a JSON value."),
    ("5,000 digits", '{"input": "a", "output": ' + "9" * 5000 + "}", "Line 1 is not JSON"),
    ("a bare word of JSON", '{"a": 1}', "Row 1 has “a” where “input” and “output” are needed."),
    ("broken quotes", 'input,output\n"a,b\nc,d\n', "cannot be read as comma-separated text"),
    ("binary", b"\x00\x01\x02\x03" * 50, "Line 1 holds a NUL byte, so this is a binary file, not text."),
    ("not UTF-8", "input,output\nä,b\n".encode("latin-1"), "Line 2 is not UTF-8 text (byte 0xe4)."),
    ("a spreadsheet", b"PK\x03\x04" + b"\x00" * 100, "This is a spreadsheet or zip file, not text."),
    ("NUL", [{"input": "a\x00", "output": "b"}] * 2, "Row 1: the input holds a NUL character; take it out."),
    ("half a surrogate pair", [{"input": "a", "output": "\ud83d"}] * 2, "Row 1: the output holds half of a surrogate"),
    ("10^5 rows", [{"input": "a", "output": "b"}] * 100_000, "You gave 100,000 rows; at most 100 are used."),
    ("10^5 lines", "input,output\n" + "a,b\n" * 100_000, "You gave 100,000 rows; at most 100 are used."),
    ("101 rows", [{"input": "a", "output": "b"}] * 101, "You gave 101 rows; at most 100 are used. Choose which ones."),
    ("one 1 MB input", [{"input": "x" * 10**6, "output": "b"}] * 2, "Row 1: the input has 1,000,000 bytes; at most 32,768"),
    ("one 1 MB cell", "input,output\n" + "x" * 10**6 + ",b\nc,d\n", "Row 1: the input has 1,000,000 bytes"),
    ("9 MB of text", "a,b\n" * 2_500_000, "The examples have 10,000,000 bytes; at most 8,388,608 are read."),
]  # fmt: skip


@pytest.mark.parametrize(("data", "sentence"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_has_its_sentence_and_costs_little_time(data, sentence):
    began = time.monotonic()
    with pytest.raises(FewShotProblem) as refusal:
        parse_examples(data)
    assert time.monotonic() - began < 5
    assert sentence in refusal.value.message
    assert refusal.value.status == 400
    assert list(refusal.value.fields) == ["examples"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("data", "sentence"),
    [m[1:] for m in MISTAKES if not isinstance(m[1], bytes) and m[0] not in {"NUL", "half a surrogate pair"}],
    ids=[
        m[0] for m in MISTAKES if not isinstance(m[1], bytes) and m[0] not in {"NUL", "half a surrogate pair"}
    ],
)
def test_the_same_mistake_over_rest_is_a_400_and_leaves_nothing_behind(data, sentence):
    make_modules(make_base_model())
    client = APIClient(raise_request_exception=True)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(make_user())}")
    answer = client.post("/api/v1/compositions/", {"base_model": "demo/tiny-t5", "examples": data})
    body = answer.json()
    if len(json.dumps(data)) > 4 * 1024**2:
        assert answer.status_code in {400, 413}, "the body is larger than any request may be"
    else:
        assert (answer.status_code, body["code"]) == (400, "few_shot_problem")
        assert sentence in body["message"]
        assert body["fields"]["examples"][0] in body["message"]
    assert not Composition.objects.exists()
    assert not Candidate.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("body", [b'{"examples": ["\\u0000"]}', b'{"examples": ["\\ud83d"]}', b"{", b"\xff"])
def test_a_body_that_is_no_good_json_is_a_400(body):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(make_user())}")
    answer = client.post("/api/v1/compositions/", body, content_type="application/json")
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "message", "fields"}


def test_all_problems_are_listed_under_the_field():
    rows = [{"input": "", "output": ""}, {"input": "a", "output": "b"}, {"input": "c"}]
    with pytest.raises(FewShotProblem) as refusal:
        parse_examples(rows, field="test_examples")
    assert refusal.value.fields == {
        "test_examples": ["Row 1 has no input.", "Row 1 has no output.", "Row 3 has an input and no output."]
    }


def test_test_rows_may_be_one_or_two_thousand():
    assert len(parse_examples([["a", "b"]], field="test_examples")) == 1
    assert len(parse_examples([["a", "b"]] * 2000, field="test_examples")) == 2000
    with pytest.raises(FewShotProblem, match="You gave 2,001 rows; at most 2,000 are used"):
        parse_examples([["a", "b"]] * 2001, field="test_examples")


def test_no_garbage_ends_in_anything_but_rows_or_a_sentence():
    generator = random.Random(1)
    alphabet = '{}[]":,;\t\n\\ab\x00\ufeff\ud800"'
    for _ in range(2000):
        text = "".join(generator.choice(alphabet) for _ in range(generator.randrange(40)))
        with suppress(FewShotProblem):
            parse_examples(text)


# --- warnings


def test_duplicates_and_contradictions_are_said():
    rows = [Example("a", "b"), Example("c", "d"), Example("a", "b"), Example("c", "e")]
    assert warnings(rows) == [
        "Rows 1, 3 are duplicates; each counts as often as it is there.",
        "Rows 2, 4 have the same input and different outputs.",
    ]


def test_outputs_that_no_score_tells_apart_are_said():
    outputs = ("Yes", "no", "yes", "No.", "no", "maybe")
    rows = [Example(f"question {number}", output) for number, output in enumerate(outputs)]
    assert warnings(rows) == [
        "Outputs differ in capitals or full stops alone, which no score tells apart: “Yes” and “yes”, “no” and “No.”."
    ]
    assert warnings(rows[-2:]) == []


def test_test_rows_that_are_there_twice_are_said():
    rows = make_examples(4, start=50)
    assert warnings(EXPECTED, rows) == []
    assert warnings(EXPECTED, [*rows, *rows[:2], rows[0]]) == [
        "5 of the test rows are duplicates; each counts as often as it is there."
    ]


def test_spaces_around_an_input_make_no_other_row():
    padded = [Example(f" {example.input}\n", example.output) for example in EXPECTED]
    assert warnings(EXPECTED, padded[:1])[0].startswith("1 of the test rows is also among the examples")
    few_shot, held_out, _ = split(
        [*make_examples(20), *(Example(f"{e.input} ", e.output) for e in make_examples(20))], 1
    )
    assert not {example.input.strip() for example in few_shot} & {
        example.input.strip() for example in held_out
    }


def test_test_rows_that_the_search_sees_are_said():
    assert warnings(EXPECTED, EXPECTED[:1]) == [
        "1 of the test rows is also among the examples, so it counts for no score."
    ]


# --- splitting


def test_fifteen_rows_are_split_by_the_seed_in_words():
    examples = make_examples(15)
    few_shot, held_out, note = split(examples, seed=7)
    assert (len(few_shot), len(held_out)) == (10, 5)
    assert sorted([*few_shot, *held_out], key=examples.index) == examples
    assert (few_shot, held_out, note) == split(examples, seed=7)
    assert held_out != split(examples, seed=8)[1]
    assert note == (
        "5 of the 15 examples, drawn by seed 7, are held out for scoring; the search sees the other 10."
    )


def test_fourteen_rows_are_too_few_and_the_note_says_unscored():
    few_shot, held_out, note = split(make_examples(14), seed=1)
    assert (len(few_shot), held_out) == (14, [])
    assert note.startswith(
        "Unscored: 14 examples are too few to hold some out (15 different ones are needed)"
    )
    assert "leave-one-out estimate" in note


def test_what_counts_is_how_many_inputs_there_are():
    note = split(make_examples(10) * 2, seed=1)[2]
    assert note.startswith("Unscored: 20 examples with 10 different inputs are too few to hold some out (15 ")
    assert split(make_examples(1), seed=1)[2].startswith("Unscored: 1 example is too few")


def test_an_estimate_is_announced_only_where_there_will_be_one():
    assert split(make_examples(4), seed=1)[2].endswith("The result gives a leave-one-out estimate instead.")
    alike = [Example("the same", answer) for answer in ("a", "b", "c")]
    assert "There is no estimate either" in split(alike, seed=1)[2]


def test_a_first_row_that_looks_like_a_header_is_said():
    rows = parse_examples(
        "Frage,Antwort\nwer kam zu spät,Anna\nwas ist das hier,ein Hut\nwo ist der Hut,hier"
    )
    assert warnings(rows)[0].startswith("Row 1 (“Frage”, “Antwort”) looks like the names of columns.")
    assert warnings(parse_examples("rot,red\nblau,blue\ngrün,green")) == []


def test_a_part_of_the_examples_may_be_small_and_not_too_large(settings):
    assert len(parse_examples([["a", "b"]], is_part=True)) == 1
    with pytest.raises(FewShotProblem, match="at most 100 are used"):
        parse_examples([["a", "b"]] * 101, is_part=True)


def test_rows_with_the_same_input_stay_together():
    examples = make_examples(20) * 2
    few_shot, held_out, _ = split(examples, seed=1)
    assert not {e.input for e in few_shot} & {e.input for e in held_out}
    assert len(held_out) == 12
