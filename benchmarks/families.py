"""Which base models compose: every architecture of the installed transformers that writes text, as a tiny random model.

    python -m benchmarks.families --out families.md
    python -m benchmarks.families --only llama t5 gpt2

Each gets two random LoRA modules on its linear matrices. Their losses, alone and in one forward with other mixes, have to be those
of the adapters in PEFT, and so has the loss of what `auto` and `lorahub` compose and export. One architecture has a process of its
own with limits of memory and time, since some defaults are of giants.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from compose.engine import loading, run
from compose.engine.errors import EngineError
from compose.engine.scoring import IGNORED, Row, pad, tokenise
from compose.engine.types import Module, Request
from tests.compose.engine import tiny

CPU = torch.device("cpu")
# Relative, of losses in float32. A loss of another mix or of the base is a hundredth away or more.
TOLERANCE = 2e-5
LAYERS = 4
MORE_LAYERS = 8  # for those with kinds of layers of which four have not every one
LARGEST = 30_000_000  # parameters
MEMORY_BYTES = 9 * 2**30
WIDTH, HEADS, PER_HEAD = 32, 4, 8

# What configs call their sizes. Each is set where a config has it.
_SIZES = (
    (WIDTH, "hidden_size d_model n_embd word_embed_proj_dim attention_hidden_size"),
    (HEADS, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
    (HEADS, "num_encoder_attention_heads num_decoder_attention_heads rotary_dim"),
    (4, "num_experts num_local_experts n_routed_experts"),
    (2, "num_experts_per_tok"),
    (1, "n_group topk_group first_k_dense_replace"),
    (PER_HEAD, "head_dim d_kv kv_channels qk_rope_head_dim qk_nope_head_dim v_head_dim"),
    (2 * PER_HEAD, "q_lora_rank kv_lora_rank qk_head_dim sliding_window attention_window"),
    (
        48,
        "intermediate_size ffn_dim d_ff encoder_ffn_dim decoder_ffn_dim ffn_hidden_size ff_intermediate_size",
    ),
    (24, "moe_intermediate_size shared_expert_intermediate_size"),
    (128, "max_position_embeddings n_positions n_ctx max_seq_len"),
)
_LAYERS = "num_hidden_layers n_layer n_layers num_layers num_encoder_layers num_decoder_layers encoder_layers decoder_layers"
_TOKENS = {"vocab_size": len(tiny.WORDS) + 3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
           "decoder_start_token_id": 1, "forced_eos_token_id": None, "forced_bos_token_id": None}  # fmt: skip


class NotTried(Exception):
    """There is no tiny text model of this architecture to try; the message says why."""


@dataclass(frozen=True)
class Outcome:
    name: str
    kind: str  # "composes", "refused", "wrong" or "not tried"
    said: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Try them one after the other, print each and at the end the table."""
    options = _parser().parse_args(arguments)
    outcomes = []
    for name, is_seq2seq in _architectures(options.only):
        outcome = _in_a_process(name, is_seq2seq, options.limit_s)
        print(f"{outcome.name}: {outcome.kind}: {outcome.said}", flush=True)
        outcomes.append(outcome)
    table = "\n".join(_table(outcomes))
    print(table)
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")
    if any(outcome.kind == "wrong" for outcome in outcomes):
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="as configs call them (model_type)")
    parser.add_argument("--limit-s", type=float, default=300, help="seconds that one may take")
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    return parser


def _architectures(only: Sequence[str] | None) -> Iterator[tuple[str, bool]]:
    seq2seq = list(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    causal = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in seq2seq]
    for names, is_seq2seq in ((seq2seq, True), (causal, False)):
        yield from ((name, is_seq2seq) for name in names if not only or name in only)


def _in_a_process(name: str, is_seq2seq: bool, limit_s: float) -> Outcome:
    # Forked from a process that has imported torch and computed nothing: torch's threads do not outlive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["compose.engine.run", "tests.compose.engine.tiny"])
    theirs, ours = context.Pipe()
    process = context.Process(target=_tell, args=(ours, name, is_seq2seq))
    process.start()
    ours.close()
    try:
        return theirs.recv() if theirs.poll(limit_s) else Outcome(name, "not tried", "it takes too long")
    except EOFError:
        return Outcome(name, "not tried", "it takes too much memory")
    finally:
        process.kill()
        process.join()


def _tell(pipe: Any, name: str, is_seq2seq: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # The tests' words and no other tokens: transformers would bend them to what an architecture is known with.
    loading.AutoTokenizer = transformers.PreTrainedTokenizerFast
    with tempfile.TemporaryDirectory() as folder:
        pipe.send(_tried(name, is_seq2seq, Path(folder)))


def _tried(name: str, is_seq2seq: bool, folder: Path) -> Outcome:
    started = time.perf_counter()
    try:
        auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
        base = _save_base(name, auto, folder / "base")
        tiny.tokenizer("t5" if is_seq2seq else "causal").save_pretrained(base)
        loaded = loading.load_base(base, device=CPU)
        modules, adapted = _save_modules(auto, base, loaded, folder)
        worst = max(_errors(auto, base, tokenise(loaded, tiny.EXAMPLES), modules, folder))
    except NotTried as error:
        return Outcome(name, "not tried", str(error))
    except EngineError as error:
        return Outcome(name, "refused", error.message.replace(f" in {base}", ""))
    except Exception as error:
        return Outcome(name, "wrong", f"{type(error).__name__}: {str(error)[:200]}")
    said = f"{adapted} matrices, {worst:.0e}, {time.perf_counter() - started:.0f} s"
    return Outcome(name, "composes" if worst <= TOLERANCE else "wrong", said)


# --- A tiny model and its modules ----------------------------------------------------------------------------


def _save_base(name: str, auto: Any, folder: Path) -> Path:
    """Raises NotTried. Key heads are fewer than heads where the architecture takes that."""
    config_class = CONFIG_MAPPING[name]
    default = _default_of(config_class)
    problem = ""
    for key_heads, layers in product((HEADS // 2, HEADS), (LAYERS, MORE_LAYERS)):
        try:
            sizes = {name: size for size, names in (*_SIZES, (layers, _LAYERS)) for name in names.split()}
            sizes["num_key_value_heads"] = key_heads
            known = {
                key: value
                for key, value in sizes.items()
                if getattr(default, key, None) is not None and not _is_property(config_class, key)
            }
            model = _random(auto.from_config(config_class(**known, **_TOKENS)))
            model.save_pretrained(folder)
            again = auto.from_pretrained(folder).eval()
            with torch.inference_mode():
                again(**_inputs(again, [[3, 4, 5]], [[6, 7]]), use_cache=False)
                again.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=2)
            return folder
        except NotTried:
            raise
        except Exception as error:  # whatever it is, there is no tiny model of it
            problem = f"no tiny one could be made ({type(error).__name__})"
    raise NotTried(problem)


def _default_of(config_class: Any) -> Any:
    """Raises NotTried."""
    try:
        default = config_class()
        is_text = default.get_text_config() is default
    except Exception as error:
        raise NotTried(f"it has no default ({type(error).__name__})") from error
    if not is_text:
        raise NotTried("it is made of more than a language model")
    return default


def _is_property(config_class: type, name: str) -> bool:
    return isinstance(getattr(config_class, name, None), property)


def _random(model: PreTrainedModel) -> PreTrainedModel:
    """With matrices that do something: the starts of training hardly change what goes through."""
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        raise NotTried("its least size is large")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def _save_modules(
    auto: Any, base: Path, loaded: loading.LoadedBase, folder: Path
) -> tuple[list[Module], int]:
    """Two modules on all linear matrices that PEFT adapts plainly, and how many those are. Raises NotTried."""
    head = loaded.model.get_output_embeddings()
    paths = [
        path
        for path, layer in loaded.model.named_modules()
        if layer is not head and not loading.why_not_adapted(loaded, path)
    ]
    modules = []
    for seed in (1, 2):
        adapter = _adapted(auto, base, paths)
        adapted = tiny.randomise(adapter, seed=seed, strength=0.3)
        adapter.save_pretrained(folder / f"module-{seed}", save_embedding_layers=False)
        modules.append(Module(f"module-{seed}", folder / f"module-{seed}"))
    return modules, adapted


def _adapted(auto: Any, base: Path, paths: Sequence[str]) -> PeftModel:
    """PEFT takes no `out_proj` of a Mamba, and turns some layers beside experts into parameters."""
    choices = (
        lambda path: True,
        lambda path: not path.endswith("out_proj"),
        lambda path: "attn" in path or "attention" in path,
    )
    for is_chosen in choices:
        chosen = [path for path in paths if is_chosen(path)]
        if not chosen:
            continue
        try:
            adapter = get_peft_model(auto.from_pretrained(base), LoraConfig(r=4, target_modules=chosen))
        except ValueError:
            continue
        if not adapter.peft_config["default"].target_parameters:
            return adapter
    raise NotTried("PEFT adapts none of its linear matrices")


# --- What has to be equal ------------------------------------------------------------------------------------


def _errors(
    auto: Any, base: Path, rows: Sequence[Row], modules: Sequence[Module], folder: Path
) -> Iterator[float]:
    """Relative differences of losses. Raises EngineError."""

    def in_peft(adapter: Path | None) -> float:
        model = auto.from_pretrained(base)
        return _loss(model if adapter is None else PeftModel.from_pretrained(model, adapter), rows)

    mixes = [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.5, 0.5], [-0.4, 0.3]]
    losses = run.score(base, modules, tiny.EXAMPLES, mixes, "exact")
    wanted = [in_peft(modules[0].path), in_peft(None), in_peft(modules[1].path)]
    wanted += [run.score(base, modules, tiny.EXAMPLES, [mix], "exact")[0] for mix in mixes[3:]]
    yield from (_apart(*pair) for pair in zip(losses, wanted, strict=True))
    for method, budget in (("auto", 15), ("lorahub", 8)):
        out = folder / method
        request = Request(
            base=base, modules=tuple(modules), examples=tiny.EXAMPLES, test=tiny.EXAMPLES[:1],
            method=method, budget=budget, out=out,
        )  # fmt: skip
        yield _apart(run.compose(request).loss, in_peft(out))


def _apart(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs)


def _inputs(model: Any, inputs: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> dict[str, Any]:
    if not model.config.is_encoder_decoder:
        inputs = [[*own, *answer] for own, answer in zip(inputs, labels, strict=True)]
        return {"input_ids": pad(inputs, 0), "attention_mask": pad([[1] * len(own) for own in inputs], 0)}
    mask = pad([[1] * len(own) for own in inputs], 0)
    return {"input_ids": pad(inputs, 0), "attention_mask": mask, "labels": pad(labels, IGNORED)}


def _loss(model: Any, rows: Sequence[Row]) -> float:
    """Mean token loss of the rows as one batch. By the logits: what some models call their loss has more in it."""
    labels = [list(row.labels) for row in rows]
    with torch.inference_mode():
        given = _inputs(model, [row.inputs for row in rows], labels)
        logits = model.eval()(**given, use_cache=False).logits
    if "labels" in given:
        wanted = given["labels"]
    else:
        wanted = pad([[*[IGNORED] * len(row.inputs), *row.labels] for row in rows], IGNORED)[:, 1:]
        logits = logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED).item()


# --- The table -----------------------------------------------------------------------------------------------


def _table(outcomes: Iterable[Outcome]) -> Iterator[str]:
    by_kind: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    composing = by_kind["composes"]
    yield f"transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    yield ""
    yield f"**Compose ({len(composing)}):** {', '.join(outcome.name for outcome in composing)}."
    for kind, heading in (("wrong", "Wrong"), ("refused", "Refused"), ("not tried", "Not tried")):
        for said, names in _by_reason(by_kind[kind]).items():
            yield ""
            yield f"**{heading}** ({len(names)}), {said}: {', '.join(names)}."


def _by_reason(outcomes: Iterable[Outcome]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        # Told alike for every class that it names.
        found[re.sub(r" is a \w+, which", "", outcome.said).rstrip(".")].append(outcome.name)
    return found


if __name__ == "__main__":
    main()
