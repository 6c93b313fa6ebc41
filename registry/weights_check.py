"""What the weights of a LoRA adapter must satisfy, read from the tensor header and, in chunks, from the bytes.

numpy is imported where bytes are read, so that a process that only serves pages never loads it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from registry.adapter_config import AdapterConfig
from registry.errors import Problem
from registry.filenames import WEIGHTS
from registry.safetensors_header import TensorInfo
from registry.targets import PatternRefused, Target, resolve_targets
from web.line import BULK

if TYPE_CHECKING:
    import numpy as np

# Full module path -> (in, out) of every linear matrix of a base model; a Conv1D counts by what it does, not by how
# it stores its weight.
Matrices = Mapping[str, tuple[int, int]]

PREFIX = "base_model.model."
ALLOWED_DTYPES = ("F64", "F32", "F16", "BF16")
CHUNK_BYTES = 512 * 1024
MAX_READERS = 4
BYTES_PER_READER = 32 * CHUNK_BYTES
SHOWN_PER_KIND = 5
OF_MATRICES = frozenset({
    "A without B", "Not targeted", "Not two-dimensional", "Other rank", "DoRA without magnitude",
    "Not in the base model", "Does not fit the base model",
})  # fmt: skip
EMBEDDING_NAMES = frozenset(
    {"embed_tokens", "lm_head", "wte", "wpe", "shared", "word_embeddings", "embed_in", "embed_out"}
)
# Heads that peft trains and saves for these tasks, even if an older version did not write them into the config.
TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
_TASKS_WITH_HEADS = frozenset({*TASK_HEADS, "FEATURE_EXTRACTION"})
# transformers keeps all experts of a layer in one parameter, so they are no linear modules there.
_EXPERTS = re.compile(r"(^|\.)(experts|block_sparse_moe)\.")
_LORA_KEY = re.compile(
    r"(?P<path>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>[^.]+))??(?:\.(?P<kind>weight|bias))?"
)
_SIGN_OFF = {"F64": ("<u8", 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000), "F32": ("<u4", 0x7FFFFFFF, 0x7F800000)}
_SIGN_OFF |= {"F16": ("<u2", 0x7FFF, 0x7C00), "BF16": ("<u2", 0x7FFF, 0x7F80)}


@dataclass
class Pair:
    """A and B of one target matrix; either may be missing in a broken file."""

    path: str
    a: TensorInfo | None = None
    b: TensorInfo | None = None

    @property
    def is_linear(self) -> bool:
        return self.a is not None and self.b is not None and len(self.a.shape) == len(self.b.shape) == 2


@dataclass
class Weights:
    """The tensors of an adapter, sorted by what they are. `others` are neither A nor B of a linear matrix."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    embeddings: dict[str, Pair] = field(default_factory=dict)
    magnitudes: list[TensorInfo] = field(default_factory=list)
    lora_biases: list[TensorInfo] = field(default_factory=list)
    others: list[TensorInfo] = field(default_factory=list)
    targets: dict[str, Target] = field(default_factory=dict)

    @property
    def has_convolutions(self) -> bool:
        return any(len(t.shape) > 2 for pair in self.pairs.values() for t in (pair.a, pair.b) if t)


@dataclass
class ByteFacts:
    """What reading every byte once tells: hash of the contents, tensors that are not finite, tensors all zero."""

    tensor_hash: str
    not_finite: list[str]
    all_zero: set[str]


class Problems(list[Problem]):
    """Problems by kind, of which the first few of each kind are shown and the rest are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def note(
        self,
        kind: str,
        where: str,
        message: str,
        *,
        found: object = "",
        expected: object = "",
        file: str = WEIGHTS,
    ) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN_PER_KIND:
            self.append(
                Problem(file=file, where=where, message=message, found=str(found), expected=str(expected))
            )

    def with_counts(self) -> list[Problem]:
        """Everything noted, with one line for each kind that says how many more there are."""
        rest = [
            Problem(
                file=WEIGHTS,
                message=f"{kind}: {more:,} more {_things(kind, more)}.",
                times=more,
            )
            for kind, count in self._counts.items()
            if (more := count - SHOWN_PER_KIND) > 0
        ]
        return [*self, *rest]


def _things(kind: str, number: int) -> str:
    """What a kind of problem is counted by: an A and a B are one matrix of the adapter."""
    one, many = ("matrix", "matrices") if kind in OF_MATRICES else ("tensor", "tensors")
    return one if number == 1 else many


def sort_tensors(tensors: Iterable[TensorInfo], problems: Problems) -> Weights:
    """Sort `tensors` by their names into what peft saves; what it would never save goes to `problems`."""
    weights = Weights()
    for tensor in tensors:
        _check_dtype(tensor, problems)
        if not tensor.name.startswith(PREFIX):
            problems.note(
                "Names that peft does not write",
                tensor.name,
                f"Tensor {tensor.name} does not begin with “{PREFIX}”, so peft would not load it. "
                "Save the adapter with peft's save_pretrained.",
                found=tensor.name,
                expected=f"{PREFIX}…",
            )
            continue
        _sort_one(tensor, weights, problems)
    return weights


def _check_dtype(tensor: TensorInfo, problems: Problems) -> None:
    if tensor.dtype not in ALLOWED_DTYPES:
        problems.note(
            "Other dtypes",
            tensor.name,
            f"Tensor {tensor.name} has dtype {tensor.dtype}; expected F64, F32, F16 or BF16.",
            found=tensor.dtype,
            expected="F64, F32, F16 or BF16",
        )


def _sort_one(tensor: TensorInfo, weights: Weights, problems: Problems) -> None:
    key = tensor.name.removeprefix(PREFIX)
    match = _LORA_KEY.fullmatch(key)
    if not match:
        if "lora_" in key:
            _note_odd_lora_name(tensor, problems)
        else:
            weights.others.append(tensor)
        return
    path, part, adapter, kind = match["path"], match["part"], match["adapter"], match["kind"]
    if adapter:
        _note_odd_lora_name(tensor, problems)
    elif part == "lora_magnitude_vector":
        weights.magnitudes.append(tensor)
    elif kind == "bias":
        weights.lora_biases.append(tensor)
    else:
        is_embedding = part.startswith("lora_embedding")
        if is_embedding == (kind == "weight"):
            _note_odd_lora_name(tensor, problems)
            return
        group = weights.embeddings if is_embedding else weights.pairs
        pair = group.setdefault(path, Pair(path))
        if part.endswith("A"):
            pair.a = tensor
        else:
            pair.b = tensor


def _note_odd_lora_name(tensor: TensorInfo, problems: Problems) -> None:
    problems.note(
        "Names that peft does not write",
        tensor.name,
        f"Tensor {tensor.name} is not named as peft saves it: expected “…lora_A.weight” or “…lora_B.weight”, "
        "without the adapter's own name. Save the adapter with peft's save_pretrained.",
        found=tensor.name,
        expected="…lora_A.weight or …lora_B.weight",
    )


def check_against_config(weights: Weights, config: AdapterConfig, problems: Problems) -> None:
    """Both halves there, targeted by the config, of the config's rank; everything else declared in the config."""
    pairs = {**weights.pairs, **weights.embeddings}
    paths = sorted(pairs)
    declared = _declared_paths(weights, paths)
    try:
        weights.targets = resolve_targets(config, declared)
    except PatternRefused as error:
        problems.append(error.problem)
        return
    if not pairs and not problems:
        problems.note(
            "No LoRA tensors",
            "",
            f"{WEIGHTS} holds no LoRA tensors (…lora_A.weight, …lora_B.weight). Save the adapter after training.",
            found="none",
            expected="A and B for every target",
        )
    for path in paths:
        _check_pair(pairs[path], weights.targets[path], config, problems)
    _check_companions(weights, config, pairs, problems)
    _check_others(weights, config, problems)


def _declared_paths(weights: Weights, paths: Sequence[str]) -> list[str]:
    """LoRA paths, and the modules of plain tensors, which may be embeddings that the config targets."""
    modules = {_module_of(tensor) for tensor in weights.others}
    return [*paths, *sorted(modules - set(paths))]


def _module_of(tensor: TensorInfo) -> str:
    return tensor.name.removeprefix(PREFIX).rpartition(".")[0].removesuffix(".base_layer")


def _check_pair(pair: Pair, target: Target, config: AdapterConfig, problems: Problems) -> None:
    a, b = pair.a, pair.b
    if a is None or b is None:
        missing, there = ("A", b) if a is None else ("B", a)
        assert there is not None
        problems.note(
            "A without B",
            there.name,
            f"The matrix {pair.path} has {there.name.removeprefix(PREFIX)}, but its lora_{missing} is missing. "
            "Save the adapter again.",
            found=f"no lora_{missing}",
            expected="lora_A and lora_B",
        )
        return
    if not target.is_targeted and not config.target_parameters:
        problems.note(
            "Not targeted",
            a.name,
            f"The weights change {pair.path}, which “target_modules” of the config does not name "
            f"({_targets_in_words(config)}). Upload the config that belongs to these weights.",
            found=pair.path,
            expected=_targets_in_words(config),
        )
    if _has_own_layout(config):
        return
    _check_rank(pair, a, b, target, problems)


def _has_own_layout(config: AdapterConfig) -> bool:
    """Variants whose A and B have other shapes than (rank, in) and (out, rank)."""
    return bool(config.enable_lora or config.use_bdlora or config.use_qalora or config.target_parameters)


def _check_rank(pair: Pair, a: TensorInfo, b: TensorInfo, target: Target, problems: Problems) -> None:
    if len(a.shape) < 2 or len(b.shape) < 2 or len(a.shape) != len(b.shape):
        problems.note(
            "Not two-dimensional",
            a.name,
            f"A and B of {pair.path} have the shapes {list(a.shape)} and {list(b.shape)}; "
            "both must be two-dimensional.",
            found=f"{list(a.shape)} and {list(b.shape)}",
            expected="(rank, in) and (out, rank)",
        )
        return
    for tensor, found, letter in ((a, a.shape[0], "A"), (b, b.shape[1], "B")):
        if found != target.rank:
            problems.note(
                "Other rank",
                tensor.name,
                f"{letter} of {pair.path} has rank {found} (shape {list(tensor.shape)}), but the config says "
                f"{target.rank}. Upload the config that belongs to these weights.",
                found=found,
                expected=target.rank,
            )
            return


def _targets_in_words(config: AdapterConfig) -> str:
    targets = config.target_modules
    if isinstance(targets, list):
        shown = ", ".join(targets[:8])
        return (shown + (", …" if len(targets) > 8 else "")) or "an empty list"
    return f"the pattern “{(targets or '')[:80]}”"


def _check_companions(
    weights: Weights, config: AdapterConfig, pairs: Mapping[str, Pair], problems: Problems
) -> None:
    """Magnitudes need `use_dora`, biases of B need `lora_bias`, and both need their A and B."""
    for tensors, is_declared, key, word in (
        (weights.magnitudes, config.use_dora, "use_dora", "DoRA magnitudes"),
        (weights.lora_biases, config.lora_bias, "lora_bias", "biases of B"),
    ):
        for tensor in tensors:
            match = _LORA_KEY.fullmatch(tensor.name.removeprefix(PREFIX))
            if not is_declared or not match or match["path"] not in pairs:
                problems.note(
                    f"Undeclared {word}",
                    tensor.name,
                    f"Tensor {tensor.name} belongs to {word}, but the config does not say “{key}”: true "
                    "for a matrix that has A and B.",
                    found=tensor.name,
                    expected=f"{key}: true",
                )
    if config.use_dora:
        with_magnitude = {
            tensor.name.removeprefix(PREFIX).split(".lora_magnitude_vector")[0]
            for tensor in weights.magnitudes
        }
        for path, pair in pairs.items():
            if path not in with_magnitude and pair.a is not None:
                problems.note(
                    "DoRA without magnitude",
                    pair.a.name,
                    f"The config says “use_dora”: true, but {path} has no lora_magnitude_vector.",
                    found="no magnitude",
                    expected=f"{PREFIX}{path}.lora_magnitude_vector",
                )


def _check_others(weights: Weights, config: AdapterConfig, problems: Problems) -> None:
    for tensor in weights.others:
        if not _is_declared(tensor, weights, config):
            problems.note(
                "Undeclared tensors",
                tensor.name,
                f"Tensor {tensor.name} is no LoRA matrix, and the config declares nothing that it could be: "
                "it is not named in “modules_to_save”, is no declared bias and no targeted embedding. "
                "Leave it out, or name its module in “modules_to_save”.",
                found=tensor.name,
                expected="LoRA matrices and what the config declares",
            )


def _is_declared(tensor: TensorInfo, weights: Weights, config: AdapterConfig) -> bool:
    name = tensor.name.removeprefix(PREFIX)
    module = _module_of(tensor)
    saved = [*(config.modules_to_save or []), *TASK_HEADS.get(config.task_type or "", ())]
    # peft compares the ends of module paths as plain texts, so "norm" also saves input_layernorm.
    if any(name_of and f"{name_of}." in f"{module}." for name_of in saved):
        return True
    if name.endswith(".bias") and config.bias == "all":
        return True
    if name.endswith(".bias") and config.bias == "lora_only" and module in weights.pairs:
        return True
    if config.trainable_token_indices and "trainable_tokens" in name:
        return True
    is_embedding = module.rpartition(".")[2] in EMBEDDING_NAMES
    return is_embedding and weights.targets[module].is_targeted and config.target_modules is not None


def check_against_base(
    weights: Weights, base: Matrices, task_type: str | None, problems: Problems, *, base_name: str = ""
) -> tuple[bool, str]:
    """Compare every linear pair with the base's matrix of the same path.

    Returns (whether everything could be compared, why it cannot be composed although it fits). A matrix that the base
    lacks or whose sizes differ goes to `problems` with both shapes.
    """
    paths, reason = _paths_in(base, list(weights.pairs))
    all_compared = True
    for pair in weights.pairs.values():
        if pair.a is None or pair.b is None:
            continue
        found = base.get(paths[pair.path])
        if found is None:
            excuse = _why_not_in_base(pair.path, task_type)
            if not excuse:
                _note_missing(pair, base, problems, base_name)
            all_compared, reason = False, reason or excuse
        elif pair.is_linear and (pair.a.shape[1], pair.b.shape[0]) != tuple(found):
            _note_misfit(pair, found, problems, base_name)
        elif _EXPERTS.search(pair.path):
            reason = reason or "It changes single experts, each of which sees some of the tokens only."
    return all_compared, reason


def _why_not_in_base(path: str, task_type: str | None) -> str:
    """Why a matrix may be missing in the base although the adapter is right; empty if it may not."""
    if _EXPERTS.search(path):
        return "It changes single experts, which the base model keeps in one block."
    if task_type in _TASKS_WITH_HEADS and not any(part.isdigit() for part in path.split(".")):
        return f"It changes {path}, a part of the head for its task that the language model does not have."
    return ""


def _paths_in(base: Matrices, paths: list[str]) -> tuple[dict[str, str], str]:
    """Each path as the base calls it, and why they differ if they do.

    An adapter trained without the head lacks the base's first segment, or has one more than a base without a head;
    pictures-and-text models were renamed between versions of transformers.
    """
    as_they_are = {path: path for path in paths}
    if not paths or any(path in base for path in paths):
        return as_they_are, ""
    heads = sorted({name.partition(".")[0] for name in base})
    changed = [{path: f"{head}.{path}" for path in paths} for head in heads]
    changed.append({path: path.partition(".")[2] for path in paths})
    for names in changed:
        if all(name in base for name in names.values()):
            return (
                names,
                "It was trained on the base model without its head, so its matrices have other names there.",
            )
    renamed = {path: _renamed(path) for path in paths}
    if any(name in base for name in renamed.values()):
        return renamed, "Its matrices have the names of an older transformers version."
    return as_they_are, ""


def _renamed(path: str) -> str:
    path = re.sub(r"^language_model\.model\.", "model.language_model.", path)
    path = re.sub(r"^vision_tower\.", "model.vision_tower.", path)
    return path.replace("vision_tower.vision_model.", "vision_tower.")


def _note_missing(pair: Pair, base: Matrices, problems: Problems, base_name: str) -> None:
    last = pair.path.rpartition(".")[2]
    same = next((name for name in base if name.rpartition(".")[2] == last), None)
    hint = f" (it has {same}, for one)" if same else f" (it has no {last} at all)"
    problems.note(
        "Not in the base model",
        f"{PREFIX}{pair.path}",
        f"The base model{_named(base_name)} has no matrix {pair.path}{hint}. Choose the base model that this was trained on.",
        found=pair.path,
        expected="a matrix of the base model",
    )


def _note_misfit(pair: Pair, found: tuple[int, int], problems: Problems, base_name: str) -> None:
    assert pair.a is not None
    assert pair.b is not None
    ours = (pair.a.shape[1], pair.b.shape[0])
    hint = " (in and out are swapped)" if ours == (found[1], found[0]) else ""
    problems.note(
        "Does not fit the base model",
        pair.a.name,
        f"{pair.path}: these weights are for a matrix of {ours[0]} in, {ours[1]} out; the one of the base model{_named(base_name)} has "
        f"{found[0]} in, {found[1]} out{hint}. Choose the base model that this was trained on.",
        found=f"{ours[0]} in, {ours[1]} out",
        expected=f"{found[0]} in, {found[1]} out",
    )


def _named(base_name: str) -> str:
    return f" {base_name}" if base_name else ""


def read_bytes(path: Path, tensors: Sequence[TensorInfo]) -> ByteFacts:
    """Read every tensor once, in chunks: are all values finite, is any tensor all zero, what is the content's hash.

    The hash is the sha256 over (name, dtype, shape, sha256 of the bytes) of all tensors sorted by name, so the order
    in the file and its metadata do not count. Large files are read by several threads, each a share of the tensors, and
    few files at a time.
    """
    shares = _shares(tensors)
    with BULK, ThreadPoolExecutor(len(shares), "tensors") as pool:
        read = [one for share in pool.map(partial(_read_tensors, path), shares) for one in share]
    whole = hashlib.sha256()
    for one in sorted(read, key=lambda one: one.tensor.name):
        shape = ",".join(str(size) for size in one.tensor.shape)
        whole.update(f"{one.tensor.name}\0{one.tensor.dtype}\0{shape}\0{one.sha256}\n".encode())
    return ByteFacts(
        whole.hexdigest(),
        [one.tensor.name for one in read if not one.is_finite],
        {one.tensor.name for one in read if one.is_zero},
    )


@dataclass(frozen=True)
class _TensorBytes:
    tensor: TensorInfo
    sha256: str
    is_finite: bool
    is_zero: bool


def _shares(tensors: Sequence[TensorInfo]) -> list[list[TensorInfo]]:
    """The tensors in their order, cut into as many runs of about equal size as threads are worth while."""
    total = sum(tensor.end - tensor.begin for tensor in tensors)
    count = max(1, min(MAX_READERS, os.cpu_count() or 1, total // BYTES_PER_READER))
    shares: list[list[TensorInfo]] = [[] for _ in range(count)]
    before = 0
    for tensor in tensors:
        shares[min(count - 1, before * count // max(1, total))].append(tensor)
        before += tensor.end - tensor.begin
    return shares


def _read_tensors(path: Path, tensors: Sequence[TensorInfo]) -> list[_TensorBytes]:
    found = []
    with path.open("rb") as stream:
        for tensor in tensors:
            digest = hashlib.sha256()
            is_finite, is_zero = True, True
            for chunk in _chunks(stream, tensor):
                digest.update(chunk)
                if tensor.dtype in _SIGN_OFF:
                    finite, zero = _look_at(chunk, tensor.dtype)
                    is_finite, is_zero = is_finite and finite, is_zero and zero
            found.append(_TensorBytes(tensor, digest.hexdigest(), is_finite, is_zero))
    return found


def _chunks(stream: BinaryIO, tensor: TensorInfo) -> Iterator[bytes]:
    stream.seek(tensor.begin)
    left = tensor.end - tensor.begin
    while left > 0:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


def _look_at(chunk: bytes, dtype: str) -> tuple[bool, bool]:
    """(all values finite, all values zero), told from the bits: numpy knows no bfloat16."""
    import numpy as np

    kind, without_sign, exponent = _SIGN_OFF[dtype]
    bits: np.ndarray = np.frombuffer(chunk, dtype=kind) & np.array(without_sign, dtype=kind)
    largest = int(bits.max(initial=0))
    return largest < exponent, largest == 0


def note_not_finite(facts: ByteFacts, problems: Problems) -> None:
    for name in facts.not_finite:
        problems.note(
            "Values that are not finite",
            name,
            f"Tensor {name} holds NaN or infinite values. Train again with a lower learning rate or in FP32; "
            "such weights would turn every answer into nothing.",
            found="NaN or infinity",
            expected="finite values",
        )
