"""Tiny but valid LoRA adapters on disk, made without torch, and raw safetensors files for odd cases."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Full module path -> (in, out) for a base of two tiny T5 blocks.
TINY_MATRICES: dict[str, tuple[int, int]] = {
    f"encoder.block.{layer}.layer.0.SelfAttention.{name}": (8, 6)
    for layer in range(2)
    for name in ("q", "k", "v", "o")
}


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    """The little-endian bytes of `values` as safetensors stores them; `dtype` is F64, F32, F16 or BF16."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def lay_out(tensors: Mapping[str, tuple[str, Iterable[int], bytes]]) -> tuple[dict[str, Any], bytes]:
    """The header (as a dict) and the body of a safetensors file with `tensors`, {name: (dtype, shape, bytes)}."""
    header: dict[str, Any] = {}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    return header, body


def safetensors_bytes(header: Mapping[str, Any] | bytes, body: bytes = b"") -> bytes:
    """A safetensors file as bytes from its header, a dict or the raw bytes of a broken one, and its body."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def write_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `tensors` to `path` as safetensors, all with `dtype`."""
    header, body = lay_out(
        {name: (dtype, value.shape, to_bytes(value, dtype)) for name, value in tensors.items()}
    )
    if metadata is not None:
        header = {"__metadata__": dict(metadata), **header}
    path.write_bytes(safetensors_bytes(header, body))
    return path


def fake_tensors(
    base_matrices: Mapping[str, tuple[int, int]] = TINY_MATRICES,
    *,
    rank: int = 2,
    targets: Iterable[str] = ("q", "v"),
    seed: int = 0,
    trained: bool = True,
) -> dict[str, np.ndarray]:
    """LoRA tensors under peft's names for every matrix whose last name is in `targets`.

    A is (rank, in), B is (out, rank); an untrained adapter has an all-zero B.
    """
    wanted = set(targets)
    generator = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for path, (in_features, out_features) in base_matrices.items():
        if path.rsplit(".", 1)[-1] not in wanted:
            continue
        key = f"base_model.model.{path}"
        tensors[f"{key}.lora_A.weight"] = generator.normal(0, 0.1, (rank, in_features))
        tensors[f"{key}.lora_B.weight"] = generator.normal(0, 0.1, (out_features, rank)) * trained
    return tensors


def fake_config(
    *, rank: int = 2, targets: Iterable[str] | str | None = ("q", "v"), **changes: Any
) -> dict[str, Any]:
    """An adapter_config.json as peft writes it; `changes` overwrite keys, a value of `...` removes one."""
    config: dict[str, Any] = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "demo/tiny-t5",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": targets if isinstance(targets, str) or targets is None else list(targets),
        "task_type": "SEQ_2_SEQ_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not ...}


def make_adapter(
    folder: Path,
    *,
    base_matrices: Mapping[str, tuple[int, int]] = TINY_MATRICES,
    rank: int = 2,
    targets: Iterable[str] = ("q", "v"),
    dtype: str = "F32",
    seed: int = 0,
    trained: bool = True,
    card: str | None = None,
    **config: Any,
) -> Path:
    """Write a valid tiny adapter into `folder` (made if missing) and return the folder.

    `seed` decides the weights, so two seeds give two contents; `config` overwrites keys of the config
    (`lora_alpha=1`, `use_rslora=True`, `base_model_name_or_path=...`); `card` becomes README.md.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = list(targets)
    write_tensors(
        folder / "adapter_model.safetensors",
        fake_tensors(base_matrices, rank=rank, targets=targets, seed=seed, trained=trained),
        dtype=dtype,
        metadata={"format": "pt"},
    )
    settings = fake_config(rank=rank, targets=targets, **config)
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def files_of(folder: Path) -> dict[str, Path]:
    """Every file under `folder` by its relative name, as inspection and publishing take them."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
