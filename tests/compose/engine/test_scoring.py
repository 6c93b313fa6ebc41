"""Losses of mixes: equal to PEFT's own for one module, to `cat` for several, and independent of batching."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from compose.engine import loading, mixing, run
from compose.engine.bank import build_bank
from compose.engine.errors import IncompatibleModule
from compose.engine.loading import LoadedBase, load_module
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import Row, Scorer, tokenise
from compose.engine.types import Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection

CPU = torch.device("cpu")


def load(base: Path) -> LoadedBase:
    return loading.load_base(base, device=CPU)


def scorer_for(
    base: LoadedBase, modules: tuple[Module, ...], *, exact_way: str = "", **options: Any
) -> Scorer:
    bank = build_bank([load_module(module) for module in modules], device=CPU)
    return Scorer(base, Mixer(base, bank, exact_way=exact_way), tokenise(base, tiny.EXAMPLES), **options)


def peft_loss(model: torch.nn.Module, base: LoadedBase, rows: list[Row]) -> float:
    """Loss of the rows as one batch, by the model itself."""

    def padded(lists: list[list[int]], filler: int) -> torch.Tensor:
        longest = max(map(len, lists))
        return torch.tensor([[*items, *[filler] * (longest - len(items))] for items in lists])

    if base.kind == "seq2seq":
        inputs = [list(row.inputs) for row in rows]
        labels = [list(row.labels) for row in rows]
    else:
        inputs = [[*row.inputs, *row.labels] for row in rows]
        labels = [[*[-100] * len(row.inputs), *row.labels] for row in rows]
    with torch.inference_mode():
        return model(
            input_ids=padded(inputs, 0),
            attention_mask=padded([[1] * len(ids) for ids in inputs], 0),
            labels=padded(labels, -100),
        ).loss.item()


VARIANTS: dict[str, dict] = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 8},
    "patterns": {"rank_pattern": {"0": 2}, "alpha_pattern": {"1": 32}},
    "other alpha": {"lora_alpha": 3},
}


def variant_options(family: str, variant: str) -> dict:
    options = dict(VARIANTS[variant])
    if variant == "patterns":
        first, second = tiny.TARGETS[family]
        options = {"rank_pattern": {first: 2, f".*1.*{second}": 6}, "alpha_pattern": {second: 32}}
    return options


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_module_at_weight_one_has_the_loss_peft_gives(
    collection: Collection, variant: str, tmp_path: Path
):
    options = variant_options(collection.family, variant)
    module = tiny.save_module(collection.base, collection.family, tmp_path / "module", seed=7, **options)
    base = load(collection.base)
    scorer = scorer_for(base, (module,))
    ours = scorer.losses([Mix(EXACT, (1.0,)), Mix(PAPER, (1.0,)), Mix(EXACT, (0.0,))])
    rows = tokenise(base, tiny.EXAMPLES)
    model = tiny.auto_class(collection.family).from_pretrained(collection.base).eval()
    assert ours[2] == pytest.approx(peft_loss(model, base, rows), rel=1e-5)
    theirs = peft_loss(PeftModel.from_pretrained(model, module.path).eval(), base, rows)
    assert ours[0] == pytest.approx(theirs, rel=1e-5)
    assert ours[1] == pytest.approx(theirs, rel=1e-5)
    assert abs(ours[0] - ours[2]) > 1e-3


@pytest.mark.parametrize("mix", [EXACT, PAPER])
@pytest.mark.parametrize("tokens", [None, 1])
def test_a_base_in_float16_takes_modules_on_what_stays_float32_in_it(
    t5: Collection, tmp_path: Path, mix: str, tokens: int | None
):
    # transformers keeps T5's wo in float32.
    modules = tiny.save_modules(t5.base, "t5", tmp_path, 3, target_modules=["q", "wo"])
    weights = [[0.0, 0.0, 0.0], [0.5, -0.2, 0.7], [0.0, 1.0, 0.0]]
    expected = run.score(t5.base, modules, tiny.EXAMPLES, weights, mix)
    base = loading.load_base(t5.base, device=CPU, dtype=torch.float16)
    bank = build_bank([load_module(module) for module in modules], device=CPU, dtype=torch.float16)
    rows = tokenise(base, tiny.EXAMPLES)
    scorer = Scorer(base, Mixer(base, bank), rows, tokens_per_forward=tokens)
    mixes = [Mix(mix, tuple(vector)) for vector in weights]
    for _ in range(3):  # from a recording as well
        assert scorer.losses(mixes) == pytest.approx(expected, rel=0.05)
        assert scorer.losses(mixes[1:2]) == pytest.approx(expected[1:2], rel=0.05)
    assert run.score(t5.base, modules, tiny.EXAMPLES, weights, mix, dtype="float16") == pytest.approx(
        expected, rel=0.05
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_a_short_float_type_scores_as_its_rounded_numbers_do(
    t5: Collection, tmp_path: Path, dtype: torch.dtype
):
    from safetensors.torch import load_file, save_file

    source = t5.modules[0].path
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    rounded = {key: value.to(dtype) for key, value in load_file(source / "adapter_model.safetensors").items()}
    save_file(rounded, tmp_path / "adapter_model.safetensors")
    base = load(t5.base)
    ours = scorer_for(base, (Module("short", tmp_path),)).losses([Mix(EXACT, (1.0,))])[0]
    model = PeftModel.from_pretrained(tiny.new_model("t5").eval(), tmp_path).eval()
    assert ours == pytest.approx(peft_loss(model, base, tokenise(base, tiny.EXAMPLES)), rel=1e-5)


def mixed_modules(collection: Collection, root: Path) -> tuple[Module, ...]:
    """Three ranks, three alphas, rsLoRA, and different target matrices."""
    first, second = tiny.TARGETS[collection.family]
    settings: list[dict] = [
        {"r": 2, "lora_alpha": 4},
        {"r": 5, "lora_alpha": 3, "use_rslora": True, "target_modules": [first]},
        {"r": 3, "lora_alpha": 9, "target_modules": [second], "rank_pattern": {f".*0.*{second}": 1}},
    ]
    return tuple(
        tiny.save_module(collection.base, collection.family, root / f"mixed-{i}", seed=20 + i, **options)
        for i, options in enumerate(settings)
    )


def test_the_exact_mix_of_unlike_modules_is_the_sum_of_their_dense_changes(
    collection: Collection, tmp_path: Path
):
    modules, weights = mixed_modules(collection, tmp_path), (0.7, -0.4, 1.2)
    base = load(collection.base)
    ours = scorer_for(base, modules).losses([Mix(EXACT, weights)])[0]
    model = tiny.auto_class(collection.family).from_pretrained(collection.base).eval()
    for module, weight in zip(modules, weights, strict=True):
        for path, factors in load_module(module).factors.items():
            layer = model.get_submodule(path)
            change = weight * factors.scaling * factors.b @ factors.a  # (out, in)
            transposed = not isinstance(layer, torch.nn.Linear)
            layer.weight.data += change.T if transposed else change
    assert ours == pytest.approx(peft_loss(model, base, tokenise(base, tiny.EXAMPLES)), rel=1e-5)


def test_the_exact_mix_agrees_with_pefts_cat(t5: Collection):
    base, weights = load(t5.base), [0.8, 0.3, 0.5]
    ours = scorer_for(base, t5.modules[:3]).losses([Mix(EXACT, tuple(weights))])[0]
    model = PeftModel.from_pretrained(tiny.new_model("t5").eval(), t5.modules[0].path, adapter_name="0")
    for index in (1, 2):
        model.load_adapter(t5.modules[index].path, adapter_name=str(index))
    model.add_weighted_adapter(["0", "1", "2"], weights, "mix", combination_type="cat")
    model.set_adapter("mix")
    assert ours == pytest.approx(peft_loss(model.eval(), base, tokenise(base, tiny.EXAMPLES)), rel=1e-5)


def test_the_paper_mix_takes_the_scaling_of_the_first_module(t5: Collection, tmp_path: Path):
    other = tiny.save_module(t5.base, "t5", tmp_path / "other-alpha", seed=9, lora_alpha=40)
    modules, weights = (t5.modules[0], other), (0.6, 0.5)
    base = load(t5.base)
    ours = scorer_for(base, modules).losses([Mix(PAPER, weights)])[0]
    model = tiny.new_model("t5").eval()
    first, second = (load_module(module).factors for module in modules)
    for path in first:
        a = weights[0] * first[path].a + weights[1] * second[path].a
        b = weights[0] * first[path].b + weights[1] * second[path].b
        model.get_submodule(path).weight.data += first[path].scaling * b @ a
    assert ours == pytest.approx(peft_loss(model, base, tokenise(base, tiny.EXAMPLES)), rel=1e-5)


def many_mixes(modules: int) -> list[Mix]:
    generator = torch.Generator().manual_seed(3)
    vectors = torch.rand(9, modules, generator=generator) * 2 - 1
    vectors[1] = 0
    vectors[4, 1:] = 0
    vectors[5, :-1] = 0
    kinds = [EXACT, EXACT, PAPER, PAPER, EXACT, EXACT, PAPER, EXACT, EXACT]
    return [Mix(kind, tuple(vector.tolist())) for kind, vector in zip(kinds, vectors, strict=True)]


def test_losses_do_not_depend_on_how_rows_are_batched(collection: Collection):
    base, mixes = load(collection.base), many_mixes(6)
    together = scorer_for(base, collection.modules).row_losses(mixes)
    one_mix = [scorer_for(base, collection.modules).row_losses([mix]) for mix in mixes]
    one_row = scorer_for(base, collection.modules, tokens_per_forward=1).row_losses(mixes)
    backwards = scorer_for(base, collection.modules).row_losses(mixes[::-1])
    alone = torch.cat([losses.sums for losses in one_mix])
    for other in (alone, one_row.sums, backwards.sums.flip(0)):
        torch.testing.assert_close(together.sums, other, rtol=1e-5, atol=1e-5)


def test_losses_do_not_depend_on_the_way_the_exact_mix_is_computed(collection: Collection):
    base, mixes = load(collection.base), many_mixes(6)
    ways = [
        scorer_for(base, collection.modules, exact_way=way).row_losses(mixes).sums
        for way in ("", "concatenated", "gathered", "dense")
    ]
    for first, second in pairwise(ways):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_losses_do_not_depend_on_the_room_for_whole_changes(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    base, mixes = load(collection.base), [Mix(EXACT, (0.3, -0.2, 0.5, 0.1, 0.7, -0.4))] * 3
    expected = scorer_for(base, collection.modules).row_losses(mixes).sums
    monkeypatch.setattr(mixing, "_DENSE_BYTES", 0)
    formed: list[torch.Tensor] = []
    from_factors = mixing._Weighted._from_factors

    def watched(self: Any) -> torch.Tensor:
        formed.append(from_factors(self))
        return formed[-1]

    monkeypatch.setattr(mixing._Weighted, "_from_factors", watched)
    losses = scorer_for(base, collection.modules).row_losses(mixes).sums
    assert formed
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


def test_unlike_modules_have_no_paper_mix_and_the_error_names_them(collection: Collection, tmp_path: Path):
    modules = mixed_modules(collection, tmp_path)
    scorer = scorer_for(load(collection.base), modules)
    with pytest.raises(IncompatibleModule, match=r"mixed-0 and mixed-1 adapt different matrices"):
        scorer.losses([Mix(PAPER, (0.5, 0.5, 0.5))])


def test_the_base_is_left_as_it_was(t5: Collection):
    base = load(t5.base)
    scorer = scorer_for(base, t5.modules)
    with scorer._mixer.attached():
        assert sum("forward" in vars(module) for module in base.model.modules()) == 12
    scorer.losses([Mix(EXACT, (1.0,) * 6)])
    assert not any("forward" in vars(module) for module in base.model.modules())
    assert not any(module._forward_hooks for module in base.model.modules())


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail] not enough memory: you tried to allocate 1 bytes.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_batch_that_does_not_fit_the_memory_is_halved(
    t5: Collection, monkeypatch: pytest.MonkeyPatch, said: str
):
    base, mixes = load(t5.base), many_mixes(6)
    expected = scorer_for(base, t5.modules).row_losses(mixes).sums
    scorer = scorer_for(base, t5.modules)
    small_enough = scorer._one_forward

    def narrow(part, rows):
        if len(part) * len(rows) > 3:
            raise RuntimeError(said)
        return small_enough(part, rows)

    monkeypatch.setattr(scorer, "_one_forward", narrow)
    torch.testing.assert_close(scorer.row_losses(mixes).sums, expected, rtol=1e-5, atol=1e-5)


def test_responses_that_do_not_fit_the_memory_are_taken_in_halves(
    t5: Collection, monkeypatch: pytest.MonkeyPatch
):
    base = load(t5.base)
    mixes = [mix for mix in many_mixes(6) if mix.kind == EXACT]
    expected = scorer_for(base, t5.modules).responses(mixes)
    scorer = scorer_for(base, t5.modules)
    logits = scorer._logits

    def narrow(rows, *, repeats):
        if len(rows) * repeats > 3:
            raise RuntimeError("[enforce fail] not enough memory: you tried to allocate 1 bytes.")
        return logits(rows, repeats=repeats)

    monkeypatch.setattr(scorer, "_logits", narrow)
    found = scorer.responses(mixes)
    assert found.losses() == pytest.approx(expected.losses(), rel=1e-5)
    assert found.examples.tolist() == expected.examples.tolist()


def test_score_gives_one_loss_for_every_weight_vector(t5: Collection):
    weights = [[0.0] * 6, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.2] * 6]
    losses = run.score(t5.base, t5.modules, tiny.EXAMPLES, weights, PAPER)
    again = [run.score(t5.base, t5.modules, tiny.EXAMPLES, [vector], PAPER)[0] for vector in weights]
    assert losses == pytest.approx(again, rel=1e-5)


@pytest.mark.parametrize("mix", [PAPER, EXACT])
def test_a_base_in_bfloat16_gives_nearly_the_same_losses(collection: Collection, mix: str):
    weights = [[0.3, 0.0, -0.2, 0.5, 0.1, 0.0], [0.0] * 6]
    arguments = (collection.base, collection.modules, tiny.EXAMPLES, weights, mix)
    assert run.score(*arguments, dtype="bfloat16") == pytest.approx(run.score(*arguments), rel=0.05)


@pytest.mark.parametrize("read", [0, 10**9], ids=["as whole matrices", "through the factors"])
def test_mixes_in_bfloat16_are_nearly_the_same_either_way(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, read: int
):
    monkeypatch.setattr("compose.engine.mixing._READ_SHORT", read)
    weights = [[0.3, 0.1, -0.2, 0.5, 0.1, 0.2], [0.1, -0.3, 0.2, 0.1, 0.4, -0.1]]
    expected = run.score(collection.base, collection.modules, tiny.EXAMPLES, weights, EXACT)
    base = loading.load_base(collection.base, device=CPU, dtype=torch.bfloat16)
    bank = build_bank([load_module(each) for each in collection.modules], device=CPU, dtype=torch.bfloat16)
    mixer = Mixer(base, bank)
    scorer = Scorer(base, mixer, tokenise(base, tiny.EXAMPLES))
    for _ in range(3):  # from a recording as well
        losses = scorer.losses([Mix(EXACT, tuple(vector)) for vector in weights])
        assert losses == pytest.approx(expected, rel=0.05)
    assert bool(mixer._dense) == (read == 0)
