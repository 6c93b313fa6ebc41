"""Reading base models and adapters from local folders, and bringing every adapter to one normal form."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from compose.engine.errors import DoesNotFit, IncompatibleModule, UnusableBase
from compose.engine.first_forward import Reading, read
from compose.engine.memory import told_of
from compose.engine.types import Module
from compose.engine.wording import first_of

# The released LoraHub code cuts inputs here; T5's relative positions set no limit of their own.
LONGEST_SEQ2SEQ_INPUT = 2048

# Layers that a router gives some tokens of the batch, so that rows with mixes of their own cannot be told apart there.
_EXPERTS = re.compile(r"(^|\.)experts\.")
_FACTOR_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<target>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight$")

# Config fields that make a LoRA more than B·A on linear matrices, and why it then cannot be mixed.
_REFUSED_FIELDS = {
    "use_dora": "it is a DoRA adapter, whose weight also depends on a magnitude vector",
    "lora_bias": "it has trained biases",
    "modules_to_save": "it replaces whole layers (modules_to_save)",
    "trainable_token_indices": "it trains token embeddings (trainable_token_indices)",
    "layer_replication": "it repeats layers of the base (layer_replication)",
    "target_parameters": "it targets bare parameters, not linear matrices (target_parameters)",
    "alora_invocation_tokens": "it is an activated LoRA that only acts after certain tokens",
    "use_qalora": "it is a QALoRA adapter",
    "use_bdlora": "it is a block-diagonal LoRA adapter",
    "arrow_config": "it is an Arrow router",
    "kasa_config": "it is a KaSA adapter",
    "velora_config": "it is a VeLoRA adapter",
    "monteclora_config": "it is a MonteCLoRA adapter",
}
# These change the base's own weights when PEFT loads the adapter.
_REFUSED_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_TOO_LARGE = "The base model needs more memory than the worker has. Choose a smaller base model."
# Out of all proportion, and still a number in float32 whatever it is weighed by.
_LARGEST_SCALING = 1e30


@dataclass(frozen=True)
class Factors:
    """One target matrix of a LoRA: its change to the base is `scaling * b @ a`."""

    a: Tensor  # (rank, in_features)
    b: Tensor  # (out_features, rank), as stored, without the scaling
    scaling: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class LoadedModule:
    """An adapter in normal form: factors by the dotted path of the matrix in the base."""

    name: str
    factors: dict[str, Factors]
    config: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        return sum(f.a.nbytes + f.b.nbytes for f in self.factors.values())


@dataclass
class LoadedBase:
    """A frozen base model with its tokenizer; `kind` is "seq2seq" or "causal"."""

    model: Any  # a PreTrainedModel; its methods are typed too loosely to be of use
    tokenizer: PreTrainedTokenizerBase
    kind: str
    device: torch.device
    context_tokens: int
    reading: Reading
    # Mixing hooks hang on the model itself, so two jobs must not use it at once.
    lock: threading.Lock = field(default_factory=threading.Lock)
    _squared_norms: dict[str, float] = field(default_factory=dict)

    def squared_norm(self, path: str) -> float:
        """Squared Frobenius norm of the matrix at this path."""
        if path not in self._squared_norms:
            weight = self.model.get_submodule(path).weight
            self._squared_norms[path] = float(torch.linalg.vector_norm(weight.detach().float())) ** 2
        return self._squared_norms[path]

    @property
    def size_bytes(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def pad_token_id(self) -> int:
        for number in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if number is not None:
                return int(number)
        raise AssertionError("unreachable")


def resolve_device(name: str) -> torch.device:
    """The torch device for "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1"."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise UnusableBase(f"There is no device {name!r}; choose auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UnusableBase(f"The device {name!r} was asked for, but this machine has no usable GPU.")
    return torch.device(name)


def load_base(path: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> LoadedBase:
    """Load a base model and its tokenizer from a local folder. Raises UnusableBase, OutOfMemory."""
    if not (path / "config.json").is_file():
        raise UnusableBase(f"There is no base model in {path}: the folder has no config.json.")
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        kind = _kind(config)
        auto = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
        with told_of(_TOO_LARGE):
            model, told = auto.from_pretrained(
                path, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise UnusableBase(f"The base model cannot be loaded: {_first_line(error, path)}") from error
    _check_whole(model, told["missing_keys"])
    _check_tokenizer(path, tokenizer)
    model.requires_grad_(False).eval()
    with told_of(_TOO_LARGE):
        model.to(device)
    return LoadedBase(
        model=model,
        tokenizer=tokenizer,
        kind=kind,
        device=device,
        context_tokens=_context_tokens(config, kind),
        reading=_read_once(path, model, kind),
    )


def _check_whole(model: Any, missing: Iterable[str]) -> None:
    """Raises UnusableBase for weights that are in no file: they would be random, and others for every worker."""
    lacking = sorted(set(missing) & {name for name, _ in model.named_parameters()})
    if lacking:
        raise UnusableBase(
            f"The base model cannot be used: its files lack the weights {first_of(lacking, most=2)}."
        )


def _check_tokenizer(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UnusableBase where none of its files is there: transformers then makes one that knows no words."""
    files = sorted(set(tokenizer.vocab_files_names.values()))  # none of one that works on bytes
    if files and not any((path / name).is_file() for name in files):
        raise UnusableBase(
            f"The base model cannot be used: its tokenizer is missing, which is in "
            f"{' or '.join(files)}. Put it beside config.json."
        )


def _read_once(path: Path, model: Any, kind: str) -> Reading:
    """Raises UnusableBase for what cannot be run, and for what reads in both directions, as BERT does: it sees the answers
    that its losses are of, and its config does not tell reliably; OutOfMemory."""
    try:
        with told_of(_TOO_LARGE):
            reading = read(model, is_seq2seq=kind == "seq2seq")
    except (ValueError, RuntimeError) as error:
        raise UnusableBase(f"The base model cannot be run: {_first_line(error, path)}") from error
    if kind == "causal" and not reading.is_left_to_right:
        raise UnusableBase(
            f"The base model is a {type(model).__name__}, which reads a text in both directions; "
            "composing needs a sequence-to-sequence or a causal language model."
        )
    return reading


def _first_line(error: Exception, folder: Path) -> str:
    """What a library said, without the folder on this machine, which is nothing to whoever asked."""
    said = str(error).replace(str(folder), "its folder").strip()
    return said.splitlines()[0] if said else type(error).__name__


def _kind(config: Any) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    architectures = getattr(config, "architectures", None) or []
    if any("MaskedLM" in name or "ForSequence" in name or "ForToken" in name for name in architectures):
        raise UnusableBase(
            f"The base model is a {architectures[0]}, which does not generate text; "
            "composing needs a sequence-to-sequence or a causal language model."
        )
    return "causal"


def _context_tokens(config: Any, kind: str) -> int:
    if kind == "seq2seq" and not hasattr(config, "max_position_embeddings"):
        return LONGEST_SEQ2SEQ_INPUT
    limit = int(getattr(config, "max_position_embeddings", None) or 0)
    return limit if limit > 0 else LONGEST_SEQ2SEQ_INPUT  # XLNet says -1: it has none


def load_module(module: Module) -> LoadedModule:
    """Read a PEFT adapter folder into normal form, float32 on the CPU.

    Understands plain LoRA on linear matrices with any rank, alpha, rsLoRA, rank_pattern and alpha_pattern, and
    any float type. Raises IncompatibleModule, naming the reason, for everything else.
    """
    config = _read_config(module)
    tensors = _read_tensors(module)
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        target, side = _split_key(module, key)
        sides.setdefault(target, {})[side] = tensor
    if not sides:
        raise _refused(module, "its tensor file holds no LoRA matrices")
    factors = {target: _factors(module, config, target, pair) for target, pair in sorted(sides.items())}
    return LoadedModule(name=module.name, factors=factors, config=config)


def _refused(module: Module, reason: str) -> IncompatibleModule:
    return IncompatibleModule(f"The module {module.name} cannot be composed: {reason}.")


def _read_config(module: Module) -> dict[str, Any]:
    path = Path(module.path) / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _refused(module, "it has no adapter_config.json") from error
    except (OSError, ValueError) as error:
        raise _refused(module, "its adapter_config.json is not readable JSON") from error
    if not isinstance(config, dict):
        raise _refused(module, "its adapter_config.json is not a JSON object")
    kind = str(config.get("peft_type", "")).upper()
    if kind != "LORA":
        raise _refused(module, f"it is of the kind {kind or 'unknown'}, and only LoRA can be mixed")
    for name, reason in _REFUSED_FIELDS.items():
        if config.get(name):
            raise _refused(module, reason)
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_REFUSED_INITS):
        raise _refused(
            module,
            f"it was initialised with {init}, which also changes the base model; convert it to plain LoRA",
        )
    return config


def _read_tensors(module: Module) -> dict[str, Tensor]:
    path = Path(module.path) / "adapter_model.safetensors"
    if not path.is_file():
        raise _refused(module, "it has no adapter_model.safetensors")
    try:
        # Read as a whole, which is faster than tensor by tensor, and so that a warm module outlives its file.
        tensors = {
            key: tensor if tensor.dtype == torch.float64 else tensor.float()
            for key, tensor in load(path.read_bytes()).items()
        }
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise _refused(module, "its adapter_model.safetensors is damaged") from error
    _check_finite(module, tensors)
    # What is too large for float32 becomes as large as can be: such a module is left out and named, not the job refused.
    most = torch.finfo(torch.float32).max
    return {
        key: tensor if tensor.dtype == torch.float32 else tensor.clamp(-most, most).float()
        for key, tensor in tensors.items()
    }


def _check_finite(module: Module, tensors: dict[str, Tensor]) -> None:
    # A sum is not finite if one of its numbers is not; where it is only too large, the numbers say so.
    if not tensors or torch.stack([tensor.sum().float() for tensor in tensors.values()]).isfinite().all():
        return
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            match = _FACTOR_KEY.match(key)
            raise _refused(module, f"{match['target'] if match else key} holds numbers that are not finite")


def _split_key(module: Module, key: str) -> tuple[str, str]:
    match = _FACTOR_KEY.match(key)
    if match:
        return match["target"], match["side"]
    if "lora_magnitude_vector" in key:
        raise _refused(module, "it is a DoRA adapter, whose weight also depends on a magnitude vector")
    if "lora_embedding" in key:
        raise _refused(module, "it adapts token embeddings, and only linear matrices can be mixed")
    if key.endswith(".bias"):
        raise _refused(module, f"it carries a trained bias ({key})")
    raise _refused(module, f"it carries a tensor that is not a LoRA matrix ({key})")


def _factors(module: Module, config: dict[str, Any], target: str, pair: dict[str, Tensor]) -> Factors:
    if set(pair) != {"A", "B"}:
        missing = "B" if "A" in pair else "A"
        raise _refused(module, f"lora_{missing} of {target} is missing")
    a, b = pair["A"], pair["B"]
    if a.dim() != 2 or b.dim() != 2:
        raise _refused(module, f"{target} is a convolution, and only linear matrices can be mixed")
    if a.shape[0] != b.shape[1]:
        raise _refused(module, f"lora_A and lora_B of {target} disagree on the rank")
    rank = _pattern_value(config, "rank_pattern", target, config.get("r"))
    if rank != a.shape[0]:
        raise _refused(
            module, f"its config says rank {rank} for {target}, its tensors have rank {a.shape[0]}"
        )
    alpha = _pattern_value(config, "alpha_pattern", target, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise _refused(module, f"its config gives no usable lora_alpha for {target}")
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return Factors(a=a, b=b, scaling=min(alpha / divisor, _LARGEST_SCALING))


def _pattern_value(config: dict[str, Any], pattern: str, target: str, default: Any) -> Any:
    values = config.get(pattern) or {}
    return values.get(get_pattern_key(list(values), target), default)


def check_fit(module: LoadedModule, base: LoadedBase) -> None:
    """Raises DoesNotFit if a matrix of the module is not in the base, has another size there or is an expert's."""
    for target, factors in module.factors.items():
        shape = linear_shape(base.model, target)
        wanted = (factors.a.shape[1], factors.b.shape[0])
        if shape is not None and shape != wanted:
            reason = f"its {target} is {wanted[0]} by {wanted[1]}, the base's is {shape[0]} by {shape[1]}"
        elif problem := why_not_adapted(base, target):
            reason = f"it adapts {target}, {problem}"
        else:
            continue
        raise DoesNotFit({module.name: reason})


def why_not_adapted(base: LoadedBase, target: str) -> str:
    """Why no module on this layer can be mixed, as the end of a sentence; empty if one can."""
    if linear_shape(base.model, target) is None:
        return "which is not a linear matrix of the base"
    if target in base.reading.more_than_linear:
        return "which does more than multiply by its matrix"
    if target in base.reading.without_rows:
        return "which sees all rows of a batch as one"
    if _EXPERTS.search(target):
        return "an expert that sees some of the tokens only"
    return ""


def check_all_fit(modules: Iterable[LoadedModule], base: LoadedBase) -> None:
    """Raises DoesNotFit, naming every module that does not."""
    reasons: dict[str, str] = {}
    for module in modules:
        try:
            check_fit(module, base)
        except DoesNotFit as error:
            reasons |= error.reasons
    if reasons:
        raise DoesNotFit(reasons)


def linear_shape(model: nn.Module, target: str) -> tuple[int, int] | None:
    """(in_features, out_features) of a linear matrix of the model, or None if there is none of that name."""
    try:
        layer = model.get_submodule(target)
    except AttributeError:
        return None
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    return None
