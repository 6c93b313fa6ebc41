"""Writing a mix as a standard PEFT adapter: equal requests give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from compose.engine.bank import paper_problem
from compose.engine.errors import BadInput, IncompatibleModule
from compose.engine.loading import Factors, LoadedModule
from compose.engine.mixing import PAPER, Mix
from compose.engine.truncation import relative_error, truncated
from compose.engine.types import FLOAT_TYPES, LARGEST_EXPORT_RANK, Exported, ExportForm

# Of the first module's config, what decides how PEFT reads the mixed factors.
_KEPT_BY_PAPER = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")


_AS_IT_IS = ExportForm()


def export_adapter(
    model: nn.Module,
    modules: Sequence[LoadedModule],
    mix: Mix,
    out: Path,
    *,
    base_name: str = "",
    seq2seq: bool,
    form: ExportForm = _AS_IT_IS,
    written: Written | None = None,
) -> Exported:
    """Write adapter_config.json and adapter_model.safetensors of the mix into `out`, and say what was written.

    The paper mix keeps the modules' rank; the exact mix is the concatenation of the modules with a weight other
    than 0, its rank the sum of theirs. Either is cut where `form` asks for a lower rank. `base_name`: empty means
    what the modules' configs name. `written` is what `in_form` made of these before, if it did. Raises BadInput for a form
    there is not, and when the folder cannot be written.
    """
    written = written or in_form(modules, mix, form)
    ranks = None if mix.kind == PAPER and not written.is_cut else written.factors
    config = _config(model, modules, list(written.factors), ranks, base_name=base_name, seq2seq=seq2seq)
    _write(out, written.factors, config)
    return Exported(
        kind="truncated" if written.is_cut else "paper" if mix.kind == PAPER else "concatenated",
        rank=max(a.shape[0] for a, _ in written.factors.values()),
        dtype=form.dtype,
        relative_error=written.relative_error(),
    )


def as_exported(modules: Sequence[LoadedModule], mix: Mix, written: Written, *, name: str) -> LoadedModule:
    """What `export_adapter` writes of a mix, as a module: cut and rounded as it is there."""
    keeps_scaling = mix.kind == PAPER and not written.is_cut
    factors = {
        target: Factors(a.float(), b.float(), modules[0].factors[target].scaling if keeps_scaling else 1.0)
        for target, (a, b) in written.factors.items()
    }
    return LoadedModule(name, factors, config={})


def is_lossy(modules: Sequence[LoadedModule], mix: Mix, form: ExportForm) -> bool:
    """Whether the adapter that is written acts otherwise than the mix."""
    return form.dtype != "float32" or 0 < form.rank < _highest_rank(modules, mix)


def _highest_rank(modules: Sequence[LoadedModule], mix: Mix) -> int:
    if mix.kind == PAPER:
        return max(each.rank for each in modules[0].factors.values())
    used = [module for module, weight in zip(modules, mix.mixing_weights, strict=True) if weight]
    targets = {target for module in used for target in module.factors}
    sums = (sum(m.factors[target].rank for m in used if target in m.factors) for target in targets)
    return max(sums, default=0)


@dataclass(frozen=True)
class Written:
    """The factors of a mix in the form that was asked for, and as they would be without it."""

    factors: dict[str, tuple[Tensor, Tensor]]
    exact: dict[str, tuple[Tensor, Tensor]]
    is_cut: bool

    def relative_error(self) -> float:
        is_rounded = any(a.dtype != torch.float32 for a, _ in self.factors.values())
        return relative_error(self.exact, self.factors) if self.is_cut or is_rounded else 0.0


def in_form(modules: Sequence[LoadedModule], mix: Mix, form: ExportForm) -> Written:
    """What is to be written of a mix. A cut takes a while, so score and file are made of one. Raises BadInput."""
    check_form(form)
    factors = mixed_factors(modules, mix)
    is_cut = 0 < form.rank < max(a.shape[0] for a, _ in factors.values())
    exact = _with_scaling(modules, mix, factors) if is_cut else factors
    shaped = {
        target: truncated(a, b, rank=form.rank) if is_cut else (a, b) for target, (a, b) in exact.items()
    }
    return Written({target: _as_type(pair, form.dtype) for target, pair in shaped.items()}, exact, is_cut)


def check_form(form: ExportForm) -> None:
    """Raises BadInput for a rank or a float type that an adapter cannot have."""
    if not 0 <= form.rank <= LARGEST_EXPORT_RANK:
        raise BadInput(
            f"The export rank is {form.rank}; give a number from 1 to {LARGEST_EXPORT_RANK}, or 0 for the mix as it is."
        )
    if form.dtype not in FLOAT_TYPES:
        raise BadInput(
            f"There is no float type {form.dtype!r} to export; choose one of: {', '.join(FLOAT_TYPES)}."
        )


def _as_type(pair: tuple[Tensor, Tensor], dtype: str) -> tuple[Tensor, Tensor]:
    """Raises BadInput where a number is too large for the type."""
    a, b = (side.to(getattr(torch, dtype)).contiguous() for side in pair)
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise BadInput(f"The mix holds numbers too large for {dtype}; export it as float32 or bfloat16.")
    return a, b


def _with_scaling(
    modules: Sequence[LoadedModule], mix: Mix, factors: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors such that B·A is the whole change; the paper mix leaves the scaling to PEFT."""
    if mix.kind != PAPER:
        return factors
    first = modules[0].factors
    return {target: (a, b * first[target].scaling) for target, (a, b) in factors.items()}


def _write(out: Path, factors: dict[str, tuple[Tensor, Tensor]], config: dict[str, Any]) -> None:
    tensors = {}
    for target, (a, b) in factors.items():
        tensors[f"base_model.model.{target}.lora_A.weight"] = a
        tensors[f"base_model.model.{target}.lora_B.weight"] = b
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise BadInput(f"The composed adapter cannot be written: {error.strerror}.") from error


def mixed_factors(modules: Sequence[LoadedModule], mix: Mix) -> dict[str, tuple[Tensor, Tensor]]:
    """A (rank, in) and B (out, rank) of the mix for every matrix, float32.

    For the paper mix B lacks the first module's scaling, as PEFT will apply it; for the exact mix it is included.
    """
    if mix.kind == PAPER:
        return _paper_factors(modules, mix)
    return _exact_factors(modules, mix)


def _paper_factors(modules: Sequence[LoadedModule], mix: Mix) -> dict[str, tuple[Tensor, Tensor]]:
    problem = paper_problem(modules)
    if problem:
        raise IncompatibleModule(f"These modules cannot be mixed as LoraHub does: {problem}.")
    mixed = {}
    for target in modules[0].factors:
        pairs = [module.factors[target] for module in modules]
        a = _weighted_sum([pair.a for pair in pairs], mix.mixing_weights)
        b = _weighted_sum([pair.b for pair in pairs], mix.mixing_weights)
        mixed[target] = (a, b)
    return mixed


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    # One after the other, elementwise: the bytes must not depend on how many threads a product uses.
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total = total + weight * tensor
    return total


def _exact_factors(modules: Sequence[LoadedModule], mix: Mix) -> dict[str, tuple[Tensor, Tensor]]:
    targets = sorted({target for module in modules for target in module.factors})
    mixed = {}
    for target in targets:
        holders = [
            (module.factors[target], weight)
            for module, weight in zip(modules, mix.mixing_weights, strict=True)
            if target in module.factors
        ]
        # PEFT knows no rank 0: a matrix nobody changes keeps one module's A with a B of zeros.
        used = [(pair, weight) for pair, weight in holders if weight] or holders[:1]
        a = torch.cat([pair.a for pair, _ in used])
        b = torch.cat([pair.b * (weight * pair.scaling) for pair, weight in used], dim=1)
        mixed[target] = (a.contiguous(), b.contiguous())
    return mixed


def _config(
    model: nn.Module,
    modules: Sequence[LoadedModule],
    targets: Sequence[str],
    factors: dict[str, tuple[Tensor, Tensor]] | None,
    *,
    base_name: str,
    seq2seq: bool,
) -> dict[str, Any]:
    """`factors` None: ranks and scaling are those of the first module; else they are read from the factors."""
    first = modules[0].config
    config: dict[str, Any] = {
        "base_model_name_or_path": base_name or first.get("base_model_name_or_path") or "",
        "bias": "none",
        "fan_in_fan_out": bool(first.get("fan_in_fan_out", False)),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "target_modules": target_names(model, targets),
        "task_type": "SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
        "use_dora": False,
    }
    if factors is None:
        return config | {name: first[name] for name in _KEPT_BY_PAPER if first.get(name) is not None}
    return config | _exact_ranks(factors)


def _exact_ranks(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Alpha equal to the rank everywhere, so that PEFT's scaling is 1; patterns for matrices of another rank."""
    ranks = {target: a.shape[0] for target, (a, _) in factors.items()}
    most = max(set(ranks.values()), key=lambda rank: (list(ranks.values()).count(rank), rank))
    others = {target: rank for target, rank in ranks.items() if rank != most}
    # A dot in a pattern is a wild card for PEFT; a full path still matches only itself in any real model.
    return {
        "r": most,
        "lora_alpha": most,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "use_rslora": False,
    }


def target_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """The shortest names PEFT understands as exactly these matrices: last parts where they suffice, else paths."""
    wanted = set(targets)
    endings = {target.rsplit(".", 1)[-1] for target in targets}
    # Whatever they are: PEFT refuses an ending that a layer has which it cannot adapt, as the numbers in a Sequential.
    covered = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in endings}
    return sorted(endings) if covered == wanted else sorted(wanted)
