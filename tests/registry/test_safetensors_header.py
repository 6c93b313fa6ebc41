import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from registry.safetensors_header import HeaderRefused, read_header
from tests.fake_adapters import fake_tensors, lay_out, safetensors_bytes, to_bytes

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BODY = bytes(8)


def refusal(tmp_path, content: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(HeaderRefused) as caught:
        read_header(path, "adapter_model.safetensors")
    assert all(problem.file == "adapter_model.safetensors" for problem in caught.value.problems)
    return caught.value.problems[0].message


def with_entry(**changes) -> bytes:
    return safetensors_bytes({"a": {**ENTRY, **changes}}, BODY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut or empty"),
        (b"\x01\x02", "cut or empty"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x80\x04" + bytes(100), "pickle"),
        (b"<!doctype html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer"),
        (b"\xff" * 16, "header is 18,446,744,073,709,551,615 bytes long, but the file has only"),
        (safetensors_bytes(b"{}" + b" " * (16 * 1024 * 1024)), "limit is 16,777,216"),
        (safetensors_bytes(b" {}"), "does not begin with “{”"),
        (safetensors_bytes(b'{"a":1'), "not valid JSON"),
        (safetensors_bytes(b'{"\xff":1}'), "not UTF-8"),
        (safetensors_bytes(b'{"a":NaN}'), "no JSON number"),
        (safetensors_bytes(b"{}\n"), "something else than spaces"),
        (safetensors_bytes(b"{}x"), "something else than spaces"),
        (safetensors_bytes(b'{"a":' + b"[" * 100_000), "nested too deep"),
        (safetensors_bytes(b"{}"), "holds no tensors"),
        (safetensors_bytes({"__metadata__": {"format": "pt"}}), "holds no tensors"),
        (safetensors_bytes({"__metadata__": {"epoch": 3}, "a": ENTRY}, BODY), "must map texts to texts"),
        (safetensors_bytes(json.dumps({"a": ENTRY})[:-1].encode() + b', "a": 1}', BODY), "names “a” twice"),
        (
            safetensors_bytes(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', BODY),
            "names “dtype” twice",
        ),
        (safetensors_bytes({"a\x00": ENTRY}, BODY), "U+0000"),
        (safetensors_bytes({"a\u202e": ENTRY}, BODY), "U+202E"),
        (safetensors_bytes({"<img src=x>": ENTRY}, BODY), "holds the character <"),
        (safetensors_bytes({"": ENTRY}, BODY), "holds nothing"),
        (safetensors_bytes({"a" * 513: ENTRY}, BODY), "513 characters"),
        (safetensors_bytes({"a": 3}, BODY), "no JSON object"),
        (safetensors_bytes({"a": {"dtype": "F32", "shape": [2]}}, BODY), "lacks data_offsets"),
        (with_entry(note="x"), "extra field note"),
        (with_entry(dtype="F12"), "dtype F12 is unknown"),
        (with_entry(shape=[2, 0]), "zero dimension"),
        (with_entry(shape=[2.0]), "no list of whole numbers"),
        (with_entry(shape=[True, 2]), "no list of whole numbers"),
        (with_entry(shape=[-2]), "no list of whole numbers"),
        (with_entry(shape=[2**62, 2**62]), "overflows"),
        (with_entry(shape=[3]), "take 12"),
        (with_entry(data_offsets=[0]), "not two whole numbers"),
        (with_entry(data_offsets=[8, 0]), "-8 bytes"),
        (safetensors_bytes({"a": ENTRY}, BODY + b"tail"), "Nothing may follow the last tensor"),
        (safetensors_bytes({"a": ENTRY}, BODY[:4]), "The file is cut"),
        (safetensors_bytes({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "leaves a gap"),
        (safetensors_bytes({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "overlaps"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_broken_header_is_refused_in_words(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


def test_more_than_twenty_thousand_tensors_are_refused(tmp_path):
    header, body = lay_out({f"t{number}": ("F16", [1], b"\0\0") for number in range(20_001)})
    assert "20,001 tensors; the limit is 20,000" in refusal(tmp_path, safetensors_bytes(header, body))


@pytest.mark.parametrize("length", [0x3C, 0x80 + 0x200, 0x80 + 0x400])
def test_a_header_whose_length_looks_like_the_start_of_another_format_is_read(tmp_path, length):
    path = tmp_path / "file"
    path.write_bytes(
        safetensors_bytes(json.dumps({"a": ENTRY}, separators=(",", ":")).encode().ljust(length), BODY)
    )
    assert len(read_header(path, "x")) == 1


def test_a_good_header_gives_every_tensor_with_its_place(tmp_path):
    header, body = lay_out({"b": ("F16", [1, 2], b"abcd"), "a": ("F32", [1], b"efgh")})
    path = tmp_path / "file"
    path.write_bytes(safetensors_bytes(json.dumps(header).encode() + b"   ", body))
    tensors = read_header(path, "x")
    assert [(tensor.name, tensor.dtype, tensor.shape, tensor.parameters) for tensor in tensors] == [
        ("b", "F16", (1, 2), 2),
        ("a", "F32", (1,), 1),
    ]
    assert path.read_bytes()[tensors[1].begin : tensors[1].end] == b"efgh"


def _good_file() -> bytes:
    tensors = {name: ("F32", value.shape, to_bytes(value, "F32")) for name, value in fake_tensors().items()}
    return safetensors_bytes(*lay_out(tensors))


GOOD = _good_file()


def _library_reads(path) -> bool:
    try:
        with safe_open(path, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError, OverflowError):
        return False
    return True


def _is_refused_with_problems(path) -> bool:
    try:
        read_header(path, "x")
    except HeaderRefused as refused:
        return bool(refused.problems) and all(problem.message.endswith(".") for problem in refused.problems)
    return False


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused_and_never_more_than_the_library_reads(tmp_path, data):
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                content[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                content = content[: max(place, 1)]
            case "insert":
                content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del content[place : place + data.draw(st.integers(1, 8))]
                content = content or bytearray(b"x")
    path = tmp_path / "file"
    path.write_bytes(bytes(content))
    assert _is_refused_with_problems(path) or _library_reads(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=5), child, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "BOOL", 1]),
                "shape": JSON,
                "data_offsets": JSON,
                "x": JSON,
            },
        )
        | JSON,
        max_size=3,
    )
)
def test_any_json_in_the_header_is_read_or_refused(tmp_path, header):
    path = tmp_path / "file"
    path.write_bytes(safetensors_bytes(header, BODY))
    assert _is_refused_with_problems(path) or _library_reads(path)
