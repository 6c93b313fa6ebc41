"""The modules that are mixed: pools of the demo's, PEFT's own merges of them, and modules that know nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from compose.engine.loading import Factors, LoadedModule, load_module
from compose.engine.types import Module
from demo import build
from demo.collection import FOLDER, Base

POOL = 20
POOLS = (1, 2, 3, 4, 5)
# How PEFT merges: weights of 1/n, but 1 for ties, which averages what agrees in sign by itself.
PEFT_MERGES: dict[str, dict[str, float]] = {
    "cat": {},
    "linear": {},
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
}


def offered(base: Base) -> list[Module]:
    """Every module of the base."""
    return [Module(pair.key, build.module_folder(FOLDER, base, pair)) for pair in base.trained]


@cache
def loaded(base: Base) -> tuple[LoadedModule, ...]:
    """Every module of the base, read."""
    return tuple(load_module(module) for module in offered(base))


def pool(base: Base, number: int) -> list[int]:
    """Indexes of the modules of one pool: 20 at random, the same for every task, as LoraHub's seeds draw them."""
    count = len(base.trained)
    return sorted(random.Random(f"{base.id}/pool/{number}").sample(range(count), min(POOL, count)))


@cache
def merged_by_peft(base: Base, number: int) -> dict[str, LoadedModule]:
    """What PEFT's `add_weighted_adapter` makes of a pool with uniform weights, as modules in normal form."""
    chosen = [offered(base)[index] for index in pool(base, number)]
    kind = AutoModelForSeq2SeqLM if base.architecture == "t5" else AutoModelForCausalLM
    model = PeftModel.from_pretrained(kind.from_pretrained(FOLDER / base.id), chosen[0].path, chosen[0].name)
    for module in chosen[1:]:
        model.load_adapter(module.path, module.name)
    names = [module.name for module in chosen]
    found = {}
    for way, settings in PEFT_MERGES.items():
        torch.manual_seed(number)  # DARE drops numbers at random
        weights = [1.0 if way == "ties" else 1.0 / len(names)] * len(names)
        model.add_weighted_adapter(names, weights, f"merged_{way}", combination_type=way, **settings)
        found[way] = _normal_form(model, f"merged_{way}")
    return found


def _normal_form(model: PeftModel, name: str) -> LoadedModule:
    config = model.peft_config[name]
    state = get_peft_model_state_dict(model, adapter_name=name)
    factors = {}
    for key, a in state.items():
        if not key.endswith(".lora_A.weight"):
            continue
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        b = state[key.replace(".lora_A.", ".lora_B.")]
        scaling = model.base_model.model.get_submodule(path).scaling[name]
        factors[path] = Factors(a=a.detach().clone(), b=b.detach().clone(), scaling=float(scaling))
    return LoadedModule(name=name, factors=factors, config=config.to_dict())


def random_like(modules: Sequence[LoadedModule], *, seed: str) -> list[LoadedModule]:
    """For each module one of random factors, whose change of every matrix has the same (Frobenius) norm."""
    generator = torch.Generator().manual_seed(build.seed_of(seed))

    def redrawn(factors: Factors) -> Factors:
        a = torch.randn(factors.a.shape, generator=generator)
        b = torch.randn(factors.b.shape, generator=generator)
        return replace(factors, a=a, b=b * (factors.b @ factors.a).norm() / (b @ a).norm())

    return [_changed(module, "random", redrawn) for module in modules]


def permuted_like(modules: Sequence[LoadedModule], *, seed: str) -> list[LoadedModule]:
    """For each module one with the singular values it was trained to, acting between other coordinates."""
    generator = torch.Generator().manual_seed(build.seed_of(seed))

    def shuffled(factors: Factors) -> Factors:
        return replace(
            factors,
            a=factors.a[:, _order(factors.a.shape[1], generator)],
            b=factors.b[_order(factors.b.shape[0], generator)],
        )

    return [_changed(module, "permuted", shuffled) for module in modules]


def irrelevant(base: Base, count: int) -> list[LoadedModule]:
    """Modules that know nothing: half of them random of the real ones' norms, half real ones permuted."""
    found: list[LoadedModule] = []
    for turn in range(count):
        make = random_like if turn % 2 else permuted_like
        model = loaded(base)[turn // 2 % len(base.trained)]
        [module] = make([model], seed=f"{base.id}/irrelevant/{turn}")
        found.append(replace(module, name=f"{module.name}-{turn}"))
    return found


def _changed(module: LoadedModule, kind: str, change: Callable[[Factors], Factors]) -> LoadedModule:
    factors = {path: change(each) for path, each in module.factors.items()}
    return LoadedModule(name=f"{kind}-{module.name}", factors=factors, config=module.config)


def _order(length: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(length, generator=generator)


def folder_of(base: Base) -> Path:
    """Where the base model lies."""
    return FOLDER / base.id
