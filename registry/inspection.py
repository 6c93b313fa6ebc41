"""Looking at an uploaded adapter's bytes: what it is, whether it may be kept, whether it can be composed.

No database, no torch, no pickle. Every door calls `inspect_folder`; it collects all problems that it can find, so that
the uploader mends them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from registry import cards, conversion
from registry.adapter_config import AdapterConfig, ConfigUnreadable, read_config
from registry.errors import InspectionRefused, Problem
from registry.filenames import CARD, CONFIG, LEGACY_WEIGHTS, WEIGHTS, check_names, is_lfs_pointer, sort_files
from registry.safetensors_header import HeaderRefused, TensorInfo, read_header
from registry.weights_check import (
    ByteFacts,
    Matrices,
    Problems,
    Weights,
    check_against_base,
    check_against_config,
    note_not_finite,
    read_bytes,
    sort_tensors,
)

BaseFit = Literal["fits", "unchecked"]
# Only these leave the base model's weights as they are while loading.
_PLAIN_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica", "true", "false"})


@dataclass
class Inspection:
    """What an upload holds. `files` are the paths to keep with their bytes, a converted weight file included."""

    facts: dict[str, Any]
    composable: bool
    composable_reason: str
    base_fit: BaseFit
    files: dict[str, Path]
    warnings: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    front_matter: dict[str, Any] = field(default_factory=dict)


def inspect_folder(
    files: Mapping[str, Path],
    base: Matrices | None = None,
    *,
    base_name: str = "",
    workspace: Path | None = None,
    may_be_unfinished: bool = False,
) -> Inspection:
    """Inspect an adapter's files, {name in the adapter: path of the bytes}.

    `base` has the sizes of the base model's matrices where it is known, without which the fit stays unchecked;
    `base_name` is what refusals call it. An `adapter_model.bin` is converted into `workspace` (its own folder if none
    is given), which the caller cleans up. With `may_be_unfinished` config and weights may be missing: what is there is
    held to the rules, and a result without facts cannot be composed. Raises InspectionRefused with every problem found.
    """
    problems = check_names(files)
    if problems:
        raise InspectionRefused(problems)
    kept, left_out = sort_files(files)
    missing = _missing_files(files)
    problems = [] if may_be_unfinished else list(missing)
    pointers = _pointers(files)
    config, config_problems = _config_of(files, skip=CONFIG in pointers)
    front_matter, card_problems = _card_of(files, skip=CARD in pointers)
    problems += [*pointers.values(), *config_problems, *card_problems]
    result = {name: files[name] for name in kept}
    if LEGACY_WEIGHTS in files and LEGACY_WEIGHTS not in pointers:
        try:
            result[WEIGHTS] = _settle_weights(files, workspace, left_out)
        except InspectionRefused as error:
            problems += error.problems
    tensors, weights, noted, bytes_facts = _weights_of(
        result, config, base, base_name=base_name, skip=WEIGHTS in pointers
    )
    problems += noted
    if problems:
        raise InspectionRefused(problems)
    if missing:
        return _unfinished(missing, result, left_out, front_matter)
    assert config is not None
    assert bytes_facts is not None
    return _conclude(config, tensors, weights, bytes_facts, base, result, left_out, front_matter)


def _unfinished(
    missing: list[Problem],
    files: dict[str, Path],
    left_out: list[dict[str, str]],
    front_matter: dict[str, Any],
) -> Inspection:
    names = " and ".join(problem.file for problem in missing)
    return Inspection(
        facts={},
        composable=False,
        composable_reason=f"It is not complete yet: {names} {'are' if len(missing) > 1 else 'is'} missing.",
        base_fit="unchecked",
        files=files,
        warnings=_left_out_in_words(left_out),
        left_out=left_out,
        front_matter=front_matter,
    )


def _missing_files(files: Mapping[str, Path]) -> list[Problem]:
    problems = []
    for name, alternatives in ((CONFIG, (CONFIG,)), (WEIGHTS, (WEIGHTS, LEGACY_WEIGHTS))):
        if any(alternative in files for alternative in alternatives):
            continue
        elsewhere = next(
            (other for other in sorted(files) if other.endswith(tuple(f"/{a}" for a in alternatives))), ""
        )
        hint = (
            f" There is one in the folder {elsewhere.rpartition('/')[0]}: upload the files of that folder."
            if elsewhere
            else " Upload the folder that peft's save_pretrained wrote."
        )
        problems.append(
            Problem(
                file=name,
                message=f"{name} is missing.{hint}",
                found=elsewhere or "no such file",
                expected=name,
            )
        )
    return problems


def _pointers(files: Mapping[str, Path]) -> dict[str, Problem]:
    """Files of the adapter itself that are only Git LFS pointers."""
    return {
        name: Problem(
            file=name,
            message=f"{name} is a Git LFS pointer, not the file itself. Fetch the file with “git lfs pull” "
            "and upload that.",
            found="a Git LFS pointer",
            expected="the file itself",
        )
        for name in (CONFIG, WEIGHTS, LEGACY_WEIGHTS, CARD)
        if name in files and is_lfs_pointer(files[name])
    }


def _config_of(files: Mapping[str, Path], *, skip: bool) -> tuple[AdapterConfig | None, list[Problem]]:
    if CONFIG not in files or skip:
        return None, []
    try:
        return read_config(files[CONFIG]), []
    except ConfigUnreadable as error:
        return None, error.problems


def _card_of(files: Mapping[str, Path], *, skip: bool) -> tuple[dict[str, Any], list[Problem]]:
    if CARD not in files or skip:
        return {}, []
    try:
        return cards.split_card(cards.read_card(files[CARD]))[0], []
    except cards.CardRefused as error:
        return {}, [error.problem]


def _settle_weights(
    files: Mapping[str, Path], workspace: Path | None, left_out: list[dict[str, str]]
) -> Path:
    """The safetensors file to keep when there is an `adapter_model.bin`: its conversion, or the one beside it."""
    legacy = files[LEGACY_WEIGHTS]
    converted = (workspace or legacy.parent) / "converted.safetensors"
    conversion.convert(legacy, converted)
    if WEIGHTS not in files:
        left_out.append(
            {"path": LEGACY_WEIGHTS, "why": f"It was converted to {WEIGHTS}; the pickle is not kept."}
        )
        return converted
    if _contents(files[WEIGHTS], WEIGHTS) != _contents(converted, LEGACY_WEIGHTS):
        raise InspectionRefused(
            [
                Problem(
                    file=LEGACY_WEIGHTS,
                    message=f"{WEIGHTS} and {LEGACY_WEIGHTS} hold different weights. Upload the one that counts.",
                    found="two different contents",
                    expected="one weight file",
                )
            ]
        )
    converted.unlink()
    left_out.append({"path": LEGACY_WEIGHTS, "why": f"It holds the same weights as {WEIGHTS}."})
    return files[WEIGHTS]


def _contents(path: Path, file: str) -> str:
    try:
        return read_bytes(path, read_header(path, file)).tensor_hash
    except HeaderRefused as error:
        raise InspectionRefused(error.problems) from None


def _weights_of(
    files: Mapping[str, Path],
    config: AdapterConfig | None,
    base: Matrices | None,
    *,
    base_name: str,
    skip: bool,
) -> tuple[list[TensorInfo], Weights, list[Problem], ByteFacts | None]:
    problems = Problems()
    if WEIGHTS not in files or skip:
        return [], Weights(), [], None
    try:
        tensors = read_header(files[WEIGHTS], WEIGHTS)
    except HeaderRefused as error:
        return [], Weights(), error.problems, None
    weights = sort_tensors(tensors, problems)
    if config is not None:
        check_against_config(weights, config, problems)
        if base is not None and not _ignores_base(config):
            check_against_base(weights, base, config.task_type, problems, base_name=base_name)
    facts = read_bytes(files[WEIGHTS], tensors)
    note_not_finite(facts, problems)
    return tensors, weights, problems.with_counts(), facts


def _ignores_base(config: AdapterConfig) -> bool:
    """Variants that give A and B other shapes, or the base other layers, than the base's own matrices."""
    return bool(
        config.layer_replication
        or config.enable_lora
        or config.use_bdlora
        or config.use_qalora
        or config.target_parameters
    )


def _conclude(
    config: AdapterConfig,
    tensors: list[TensorInfo],
    weights: Weights,
    byte_facts: ByteFacts,
    base: Matrices | None,
    files: dict[str, Path],
    left_out: list[dict[str, str]],
    front_matter: dict[str, Any],
) -> Inspection:
    reason = why_not_composable(config, weights)
    base_fit: BaseFit = "unchecked"
    if base is not None and not _ignores_base(config):
        compared, other_names = check_against_base(weights, base, config.task_type, Problems())
        base_fit = "fits" if compared else "unchecked"
        reason = reason or other_names
    return Inspection(
        facts=_facts(config, tensors, weights, byte_facts, files[WEIGHTS].stat().st_size),
        composable=not reason,
        composable_reason=reason,
        base_fit=base_fit,
        files=files,
        warnings=_warnings(config, weights, byte_facts, left_out),
        left_out=left_out,
        front_matter=front_matter,
    )


def why_not_composable(config: AdapterConfig, weights: Weights) -> str:
    """Why this is not plain LoRA on linear matrices, as a sentence; empty if it is."""
    saved_whole = ", ".join(dict.fromkeys(config.modules_to_save or []))[:200]
    start = config.init_lora_weights
    reasons = (
        (config.use_dora, "It uses DoRA, which also rescales the base model's matrices."),
        (saved_whole, f"It replaces whole modules of the base model ({saved_whole})."),
        (config.bias in ("all", "lora_only"), "It also trains biases of the base model."),
        (config.lora_bias or weights.lora_biases, "It adds a bias to B."),
        (weights.embeddings, "It changes embeddings."),
        (config.trainable_token_indices, "It trains single token embeddings."),
        (weights.others, "It brings along tensors that are no LoRA matrices."),
        (config.enable_lora, "It is of an old kind that changes parts of joined matrices (“enable_lora”)."),
        (weights.has_convolutions, "It changes convolutions, not only linear matrices."),
        (config.use_qalora, "It uses QALoRA, whose A works on groups of inputs."),
        (config.use_bdlora, "It uses block-diagonal LoRA."),
        (
            config.target_parameters,
            "It changes parameters that are not linear modules (“target_parameters”).",
        ),
        (config.layer_replication, "It repeats layers of the base model (“layer_replication”)."),
        (
            config.alora_invocation_tokens,
            "It is an activated LoRA, which works only after its invocation tokens.",
        ),
        (config.arrow_config, "It uses Arrow routing between several adapters."),
        (config.kasa_config, "It uses KaSA, which changes the base model's weights."),
        (
            config.velora_config or config.monteclora_config,
            "It uses a variant of LoRA that adds parts of its own.",
        ),
        (
            isinstance(start, str) and start.lower() not in _PLAIN_STARTS,
            f"It starts from changed base weights (“init_lora_weights”: {str(start)[:40]}); "
            "convert it with peft's path_initial_model_for_weight_conversion.",
        ),
    )
    return next((sentence for applies, sentence in reasons if applies), "")


def _variants(config: AdapterConfig, weights: Weights) -> list[str]:
    start = config.init_lora_weights
    named = {
        "rslora": config.use_rslora,
        "dora": config.use_dora,
        "bias": config.bias in ("all", "lora_only") or config.lora_bias,
        "modules_to_save": config.modules_to_save,
        "embeddings": weights.embeddings or config.trainable_token_indices,
        "convolutions": weights.has_convolutions,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "enable_lora": config.enable_lora,
        "qalora": config.use_qalora,
        "bdlora": config.use_bdlora,
        "target_parameters": config.target_parameters,
        "layer_replication": config.layer_replication,
        "alora": config.alora_invocation_tokens,
        "arrow": config.arrow_config,
        "kasa": config.kasa_config,
    }
    names = [name for name, applies in named.items() if applies]
    if isinstance(start, str) and start.lower() not in ("true", "false", "gaussian"):
        names.append(start.lower()[:40])
    return names


def _facts(
    config: AdapterConfig, tensors: list[TensorInfo], weights: Weights, byte_facts: ByteFacts, size_bytes: int
) -> dict[str, Any]:
    """Everything that pages and searches show about the weights, ready for JSON."""
    targets = [weights.targets[path] for path in (*weights.pairs, *weights.embeddings)]
    by_name = sorted(tensors, key=lambda tensor: tensor.name)
    mapping = config.auto_mapping if isinstance(config.auto_mapping, dict) else {}
    architecture = mapping.get("base_model_class")
    named = config.target_modules
    return {
        "peft_type": config.peft_type,
        "rank": max(target.rank for target in targets),
        "ranks": sorted({target.rank for target in targets}),
        "alpha": config.lora_alpha,
        "scaling": sorted({round(target.scaling, 9) for target in targets}),
        "target_modules": sorted(set(named)) if isinstance(named, list) else named,
        "target_matrices": len(targets),
        "target_names": sorted({path.rpartition(".")[2] for path in (*weights.pairs, *weights.embeddings)}),
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
        "parameters": sum(tensor.parameters for tensor in tensors),
        "size_bytes": size_bytes,
        "variants": _variants(config, weights),
        "tensor_hash": byte_facts.tensor_hash,
        "base_model_label": config.base_model_label,
        "base_model_is_local": config.base_model_is_local,
        "architecture": architecture if isinstance(architecture, str) else "",
        "task_type": config.task_type or "",
        "peft_version": config.peft_version or "",
        "tensors": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in by_name
        ],
    }


def _warnings(
    config: AdapterConfig, weights: Weights, byte_facts: ByteFacts, left_out: list[dict[str, str]]
) -> list[str]:
    warnings = []
    pairs = [*weights.pairs.values(), *weights.embeddings.values()]
    for half in ("a", "b"):
        names = [tensor.name for pair in pairs if (tensor := getattr(pair, half))]
        if names and byte_facts.all_zero.issuperset(names):
            warnings.append(f"Untrained: it changes nothing, because every {half.upper()} is all zero.")
    label = config.base_model_label
    if not label:
        warnings.append("The config names no base model. Say which one it was trained on.")
    elif config.base_model_is_local:
        warnings.append(
            f"The config names its base model by a local path ({label[:200]}). Say which base model that is."
        )
    if config.target_modules is None:
        warnings.append("The config names no target modules; the weights say which matrices are changed.")
    if config.auto_mapping or config.layer_replication:
        warnings.append("The config names code or layers to load; this registry never does so.")
    return warnings + _left_out_in_words(left_out)


def _left_out_in_words(left_out: list[dict[str, str]]) -> list[str]:
    return [
        f"{entry['path']} was left out. {entry['why']}"
        for entry in left_out
        if entry["path"] != LEGACY_WEIGHTS or "converted" in entry["why"]
    ]
