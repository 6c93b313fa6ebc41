"""Uploads that must be refused and odd ones that must be taken, made from scratch: `bad()` and `good()`.

Each case is a name with the files of one upload; the weights are those of `fake_adapters`, with one thing changed.
Run as `python -m tests.hostile_corpus DIR` it writes every case into a folder of its own, to be thrown at a real site.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.fake_adapters import TINY_MATRICES, fake_config, fake_tensors, lay_out, safetensors_bytes, to_bytes

Files = dict[str, bytes]
Case = tuple[str, Files]
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
FIRST = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"


class Attack:
    """What a pickle runs when it is loaded: here it would leave a file behind."""

    def __reduce__(self) -> Any:
        return (exec, ("open('/tmp/lora-commons-pickle-ran', 'w').close()",))


def config_bytes(**changes: Any) -> bytes:
    return json.dumps(fake_config(**changes)).encode()


def parts(dtype: str = "F32", **options: Any) -> tuple[dict[str, Any], bytes]:
    tensors = fake_tensors(**options)
    return lay_out({name: (dtype, value.shape, to_bytes(value, dtype)) for name, value in tensors.items()})


def weights(dtype: str = "F32", **options: Any) -> bytes:
    return safetensors_bytes(*parts(dtype, **options))


def tensors_with(**changes: np.ndarray | None) -> bytes:
    """The usual weights with tensors replaced, added, or (None) taken away."""
    tensors = fake_tensors()
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    return safetensors_bytes(
        *lay_out({name: ("F32", value.shape, to_bytes(value, "F32")) for name, value in tensors.items()})
    )


def upload(*, config: bytes | None = None, model: bytes | None = None, **more: bytes) -> Files:
    return {
        CONFIG: config_bytes() if config is None else config,
        WEIGHTS: weights() if model is None else model,
        **more,
    }


def header_with(change: Any) -> bytes:
    """The usual file after `change(header)`, which may change the header or return another."""
    header, body = parts()
    return safetensors_bytes(change(header) or header, body)


def at_first(**fields: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        name = next(iter(header))
        header[name] = {**header[name], **fields}

    return change


# --- To be refused -------------------------------------------------------------------------------------------


def bad() -> Iterator[Case]:
    yield from (("header: " + name, upload(model=model)) for name, model in _bad_headers())
    yield from (("tensors: " + name, upload(model=model)) for name, model in _bad_tensors())
    yield from (("config: " + name, upload(config=config)) for name, config in _bad_configs())
    yield from (("files: " + name, files) for name, files in _bad_files())
    yield from (("card: " + name, {**upload(), CARD: card}) for name, card in _bad_cards())


def _bad_headers() -> Iterator[tuple[str, bytes]]:
    whole = weights()
    header, body = parts()
    text = json.dumps(header).encode()
    first = next(iter(header))
    for length in (
        0,
        1,
        4,
        7,
        8,
        9,
        16,
        64,
        256,
        len(whole) // 4,
        len(whole) // 2,
        len(whole) - 8,
        len(whole) - 1,
    ):
        yield f"cut after {length} bytes", whole[:length]
    for extra in (b"\0", b"\0" * 4096, b"PK\x03\x04", pickle.dumps(Attack())):
        yield f"{len(extra)} bytes {extra[:4]!r} behind the end", whole + extra
    for size in (0, 1, 2, len(whole), 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 100_000_001, 17 * 1024**2):
        yield f"says it has {size} bytes", struct.pack("<Q", size) + text + body
    for number, raw in enumerate((
        b"[]", b"null", b'""', b"1", b"{", b"}", b"{}", b"{]", b'{"a"}', b"{'a': 1}", b"\xff\xfe{}", b"{}{}",
        b" " + text, b"\n" + text, b"\t" + text, b"\0" + text, b"\xef\xbb\xbf" + text, text[:-1], text + b",",
        text + b"\0" * 8, text + b"x", b"[" * 5000 + b"]" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000,
        text.replace(b"{", b'{"x": NaN, ', 1), text.replace(b"{", b'{"x": 1, ', 1), text.replace(b"F32", b"f32", 1),
        text.replace(b"F32", b"\xed\xa0\x80", 1), b"{" + text[1:-1] + b"," + text[1:],
    )):  # fmt: skip
        yield f"raw {number}, {raw[:20]!r} of {len(raw)}", safetensors_bytes(raw, body)
    for dtype in (
        "I8",
        "U8",
        "I16",
        "I32",
        "I64",
        "BOOL",
        "F8_E4M3",
        "F8_E5M2",
        "C64",
        "F128",
        "",
        "F32 ",
        7,
        None,
    ):
        yield f"dtype {dtype!r}", header_with(at_first(dtype=dtype))
    for shape in (
        [], [0, 8], [2], [2, 8, 1], [1, 16], [8, 2], [-2, -8], [2, 2**62], [2**63, 2], [2.0, 8], ["2", 8], None,
        "2,8", [2, [8]], [True, 16], [2, 8, 0],
    ):  # fmt: skip
        yield f"shape {shape!r}", header_with(at_first(shape=shape))
    all_offsets: tuple[Any, ...] = (
        [0, 0], [0, 63], [0, 65], [1, 65], [64, 0], [-64, 0], [0, 2**63], [2**63, 2**63 + 64], [0.0, 64.0], ["0", "64"],
        [0], [0, 64, 128], None, {}, "0-64", [64, 128],
    )  # fmt: skip
    for offsets in all_offsets:
        yield f"offsets {offsets!r}", header_with(at_first(data_offsets=offsets))
    yield "a field more", header_with(at_first(device="cpu"))
    yield "a hole between tensors", safetensors_bytes(_moved(header, 64), b"\0" * 64 + body)
    for missing in ("dtype", "shape", "data_offsets"):
        yield (
            f"no {missing}",
            safetensors_bytes(
                {**header, first: {key: value for key, value in header[first].items() if key != missing}},
                body,
            ),
        )
    metadatas: tuple[Any, ...] = (1, [], "x", {"a": 1}, {"a": None}, {"a": {}}, {"a": ["b"]})
    for metadata in metadatas:
        yield f"metadata {metadata!r}", safetensors_bytes({"__metadata__": metadata, **header}, body)
    for name in (
        "",
        "a\0b",
        "a\nb",
        "\u202egpj",
        "x" * 513,
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "é\u0000",
    ):
        renamed = {name if key == first else key: value for key, value in header.items()}
        yield f"tensor called {name[:20]!r}", safetensors_bytes(renamed, body)
    many = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(20_001)}
    yield "20,001 empty tensors", safetensors_bytes(many)
    yield "no tensors", safetensors_bytes({})
    yield "metadata alone", safetensors_bytes({"__metadata__": {"format": "pt"}})


def _moved(header: dict[str, Any], by: int) -> dict[str, Any]:
    return {
        name: {**info, "data_offsets": [offset + by for offset in info["data_offsets"]]}
        for name, info in header.items()
    }


def _bad_tensors() -> Iterator[tuple[str, bytes]]:
    a, b = f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"
    for dtype in ("F64", "F32", "F16", "BF16"):
        for value in (np.nan, np.inf, -np.inf):
            header, body = parts(dtype)
            poison = to_bytes(np.array([value]), dtype)
            yield f"{value} in {dtype}", safetensors_bytes(header, poison + body[len(poison) :])
            yield f"{value} at the end of {dtype}", safetensors_bytes(header, body[: -len(poison)] + poison)
    yield "A without B", tensors_with(**{b: None})
    yield "B without A", tensors_with(**{a: None})
    for shape in ((2, 7), (2, 9), (3, 8), (1, 8), (8, 2), (2, 8, 1), (16,)):
        yield f"A of shape {shape}", tensors_with(**{a: np.ones(shape)})
    for shape in ((5, 2), (7, 2), (6, 3), (2, 6), (6, 2, 1), (12,)):
        yield f"B of shape {shape}", tensors_with(**{b: np.ones(shape)})
    yield "other rank than the config", weights(rank=3)
    yield "a target that the config does not name", weights(targets=("q", "v", "o"))
    for name in (
        "base_model.model.shared.weight", "optimizer.state.0.exp_avg", "encoder.block.0.layer.0.SelfAttention.q.weight",
        f"{FIRST}.base_layer.weight", f"{FIRST}.lora_magnitude_vector", f"{FIRST}.lora_embedding_A",
        f"{FIRST}.modules_to_save.weight", "classifier.weight", "x",
        "base_model.model.decoder.block.9.layer.0.SelfAttention.q.lora_A.weight",
    ):  # fmt: skip
        yield f"stray tensor {name}", tensors_with(**{name: np.ones((2, 8))})
    elsewhere = {f"decoder.layers.{layer}.{name}": (8, 6) for layer in range(2) for name in ("q", "v")}
    yield "matrices that the base model does not have", weights(base_matrices=elsewhere)
    wider = {path: (16, 12) for path in TINY_MATRICES}
    yield "matrices of another size than the base model's", weights(base_matrices=wider)


def _bad_configs() -> Iterator[tuple[str, bytes]]:
    good = fake_config()
    for raw in (
        b"", b" ", b"\0", b"{", b"[]", b"null", b"1", b'"x"', b"{} {}", b"\xff\xfe\x00", b"{'r': 2}", b"// no\n{}",
        b"PK\x03\x04", b"<html></html>", json.dumps(good).encode()[:-1], json.dumps(good).encode() + b"x",
        b"[" * 50_000, b'{"a":' * 20 + b"1" + b"}" * 20, json.dumps(good).encode().replace(b'"r": 2', b'"r": 2, "r": 4'),
        json.dumps(good).encode("utf-16"), json.dumps({**good, "note": "x" * 70_000}).encode(),
        json.dumps(good).encode().replace(b'"r": 2', b'"r": NaN'), pickle.dumps(good),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
    ):  # fmt: skip
        yield f"{raw[:20]!r} of {len(raw)}", raw
    for kind in (
        "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "LOHA", "LOKR", "ADALORA", "BOFT", "OFT", "VERA", "XLORA",
        "lora\0", "", 1, None, ["LORA"], {"LORA": 1}, "<b>LORA</b>",
    ):  # fmt: skip
        yield f"peft_type {kind!r}", config_bytes(peft_type=kind)
    ranks: tuple[Any, ...] = (0, -1, 1025, 2**31, 2**70, "2", 2.5, None, [2], {}, True)
    for rank in ranks:
        yield f"r {rank!r}", json.dumps({**good, "r": rank}).encode()
    alphas: tuple[Any, ...] = (0, -1, "4", None, [4], {}, True, -0.5)
    for alpha in alphas:
        yield f"lora_alpha {alpha!r}", json.dumps({**good, "lora_alpha": alpha}).encode()
    for raw_alpha in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1e400"):
        yield (
            f"lora_alpha {raw_alpha!r}",
            json.dumps(good).encode().replace(b'"lora_alpha": 4', b'"lora_alpha": ' + raw_alpha),
        )
    for targets in (
        "(",
        "[",
        "*",
        "(?P<x",
        "(a+)+$",
        ["("] * 3,
        5,
        [1],
        [None],
        {"q": 1},
        [["q"]],
        "nothing",
        ["nothing"],
        [],
    ):
        yield (
            f"target_modules {str(targets)[:20]!r}",
            json.dumps({**good, "target_modules": targets}).encode(),
        )
    patterns: tuple[Any, ...] = ([], "q", {"q": "4"}, {"q": 0}, {"q": 4}, {"(": 2}, {"q": 2**70}, {"q": None})
    for pattern in patterns:
        yield f"rank_pattern {pattern!r}", json.dumps({**good, "rank_pattern": pattern}).encode()
    for pattern in ([], "q", {"q": "4"}, {"q": None}, {"(": 2}):
        yield f"alpha_pattern {pattern!r}", json.dumps({**good, "alpha_pattern": pattern}).encode()
    for field, value in (
        ("use_dora", "yes"),
        ("use_rslora", 2),
        ("bias", "some"),
        ("bias", 1),
        ("modules_to_save", "x"),
        ("modules_to_save", [1]),
        ("fan_in_fan_out", "x"),
    ):
        yield f"{field} {value!r}", json.dumps({**good, field: value}).encode()


def _bad_files() -> Iterator[Case]:
    good = upload()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(WEIGHTS, good[WEIGHTS])
    attack = pickle.dumps(Attack())
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    for name, content in (
        ("an archive", archive.getvalue()), ("gzip", gzip.compress(good[WEIGHTS])), ("a pointer of Git LFS", pointer),
        ("a page", b"<!doctype html><title>404</title>"), ("a pickle", attack), ("text", b"hello"), ("zeros", b"\0" * 4096),
    ):  # fmt: skip
        yield f"weights are {name}", {CONFIG: good[CONFIG], WEIGHTS: content}
    yield "a pickle that runs code in place of weights", {CONFIG: good[CONFIG], "adapter_model.bin": attack}
    yield (
        "an archive of a pickle in place of weights",
        {CONFIG: good[CONFIG], "adapter_model.bin": _torch_like(attack)},
    )
    yield "two different weight files", {**good, "adapter_model.bin": attack}
    for name in (
        "../adapter_model.safetensors", "/etc/passwd", "a/../../x.txt", "a\\b.txt", "a//b.txt", "./x.txt", "x\0.txt",
        "x\u202etxt.exe", "a\tb.txt", "\u200bREADME.md", "x" * 300 + ".txt", "é.txt",
        "a/" * 200 + "x.txt", "..", "~/x.txt\n", "a/./x.txt", "con\x7f.txt", "\u2066x.txt",
    ):  # fmt: skip
        yield f"a file called {name[:24]!r}", {**good, name: b"text"}
    for one, two in (
        ("readme.md", CARD),
        ("Adapter_config.json", CONFIG),
        ("ADAPTER_MODEL.safetensors", WEIGHTS),
    ):
        yield f"{one} beside {two}", {**good, CARD: b"# x\n", one: b"# y\n"}


def _torch_like(payload: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", payload)
        file.writestr("archive/version", "3\n")
    return out.getvalue()


def _bad_cards() -> Iterator[tuple[str, bytes]]:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
    )
    for name, front in (
        ("aliases", bomb), ("a date that is none", "date: 2024-13-45"), ("5,000 digits", "n: " + "1" * 5000),
        ("deep lists", "a: " + "[" * 2000), ("a tag of Python", "a: !!python/object/apply:os.system ['id']"),
        ("no mapping", "- a\n- b"), ("a lone bracket", "a: ["), ("a tab", "a:\n\t- b"),
        ("17 KiB", "a: " + "x" * 17 * 1024), ("a merge of itself", "a: &a\n  <<: *a"),
    ):  # fmt: skip
        yield f"front matter with {name}", f"---\n{front}\n---\n# x\n".encode()
    yield "300 KiB", b"# x\n" * 80_000
    yield "Latin-1", b"# caf\xe9\n"
    yield "a NUL", b"# a\0b\n"
    yield "UTF-16", "# x\n".encode("utf-16")
    yield "half of a surrogate pair", b"# \xed\xa0\x80\n"


# --- To be taken -----------------------------------------------------------------------------------------------


def good() -> Iterator[Case]:
    yield "as peft saves it", upload()
    for dtype in ("F64", "F32", "F16", "BF16"):
        yield f"weights in {dtype}", upload(model=weights(dtype))
    for rank in (1, 3, 8, 64):
        yield f"rank {rank}", upload(config=config_bytes(rank=rank), model=weights(rank=rank))
    for alpha in (0.5, 1, 4.0, 16, 100_000, 1e-3):
        yield f"alpha {alpha}", upload(config=config_bytes(lora_alpha=alpha))
    for targets in (["q"], ["q", "k"], ["q", "k", "v", "o"]):
        yield (
            f"targets {targets}",
            upload(config=config_bytes(targets=targets), model=weights(targets=targets)),
        )
    for field, value in (
        ("peft_version", "0.21.2"), ("peft_version", ...), ("lora_dropout", 0), ("lora_dropout", 1), ("modules_to_save", []),
        ("use_rslora", True), ("task_type", None), ("task_type", ...), ("bias", ...), ("rank_pattern", ...),
        ("alpha_pattern", {"q": 8}), ("alpha_pattern", {"encoder.block.0.layer.0.SelfAttention.q": 8}), ("rank_pattern", {"q": 2}),
        ("layers_pattern", None), ("init_lora_weights", "gaussian"), ("revision", "main"), ("inference_mode", False),
        ("base_model_name_or_path", ""), ("base_model_name_or_path", None), ("base_model_name_or_path", ...),
        ("base_model_name_or_path", "/home/me/models/t5"), ("base_model_name_or_path", "C:\\models\\t5"),
        ("some_new_field", {"a": [1, 2, {"b": None}]}), ("note", "Grüße, 世界 😀"), ("auto_mapping", None),
        ("layer_replication", None), ("corda_config", None), ("megatron_config", None), ("lora_bias", False),
    ):  # fmt: skip
        yield f"config with {field} {str(value)[:24]!r}", upload(config=config_bytes(**{field: value}))
    for pattern in (
        r".*\.(q|v)", ".*SelfAttention.(q|v)$", r"(?!decoder).*\.(q|v)", ["q", "v", "q"], ["SelfAttention.q", "SelfAttention.v"],
    ):  # fmt: skip
        yield (
            f"target_modules {str(pattern)[:24]!r}",
            upload(config=json.dumps({**fake_config(), "target_modules": pattern}).encode()),
        )
    pretty = json.dumps(fake_config(), indent=4)
    yield "config with CRLF", upload(config=pretty.replace("\n", "\r\n").encode())
    yield "config in one line with spaces behind", upload(config=config_bytes() + b"  \n\n")
    yield "config with escaped letters", upload(config=json.dumps(fake_config(note="é")).encode("ascii"))
    header, body = parts()
    text = json.dumps(header).encode()
    yield "header padded with spaces", upload(model=safetensors_bytes(text + b" " * 7, body))
    yield (
        "header with metadata",
        upload(model=safetensors_bytes({"__metadata__": {"format": "pt", "é": "<b>"}, **header}, body)),
    )
    yield "tensors listed backwards", upload(model=safetensors_bytes(dict(reversed(header.items())), body))
    yield "B all zero", upload(model=weights(trained=False))
    yield (
        "very small and very large values",
        upload(model=tensors_with(**{f"{FIRST}.lora_A.weight": np.full((2, 8), 1e30)})),
    )
    for card in (
        b"# Title\n", b"", "# Grüße 世界 😀\n".encode(), b"---\nlicense: mit\n---\n", b"---\ntags: [a, b]\nlanguage: [en, de]\n---\n# x\r\n",
        b"---\nbase_model: demo/tiny-t5\n---\n<script>alert(1)</script>\n", b"\xef\xbb\xbf# with a mark\n", b"no heading",
    ):  # fmt: skip
        yield f"card {card[:24]!r}", {**upload(), CARD: card}
    for name, content in (
        (".gitattributes", b"*.bin filter=lfs\n"), ("training_args.bin", pickle.dumps(Attack())), ("tokenizer.json", b"{}"),
        ("special_tokens_map.json", b"{}"), ("trainer_state.json", b"{}"), ("all_results.json", b"{}"), ("notes.txt", b"x"),
        ("optimizer.pt", pickle.dumps(Attack())), ("run.sh", b"rm -rf /\n"), ("index.html", b"<script>alert(1)</script>"),
    ):  # fmt: skip
        yield f"{name} beside it", {**upload(), name: content}


def write(folder: Path) -> int:
    """All cases as folders, those to be refused below `bad`, the others below `good`. Returns how many."""
    count = 0
    for kind, cases in (("bad", bad()), ("good", good())):
        for number, (_, files) in enumerate(cases):
            for name, content in files.items():
                path = folder / kind / f"{number:03}" / name.replace("\0", "%00")
                if folder in path.resolve().parents and len(name) < 200:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            count += 1
    return count


if __name__ == "__main__":
    print(write(Path(sys.argv[1]).absolute()), "cases")
