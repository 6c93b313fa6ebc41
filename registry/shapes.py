"""The sizes of a base model's matrices from its config.json, without any of its weights.

transformers builds the model on the meta device, where tensors have shapes and no values. It runs in the jail, because
the numbers come from strangers: `python -m registry.shapes < config.json` writes one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from registry import jail
from registry.adapter_config import ConfigUnreadable, parse_json_object
from registry.errors import ConfigRefused, JailFailed
from registry.filenames import show

MAX_CONFIG_BYTES = 256 * 1024
LIMITS = jail.Limits(time_s=120, cpu_s=100, memory_bytes=3072 * jail.MIB)
# The largest number that any published model has, with room: for layers, experts, and everything else.
_LARGEST = {"layer": 512, "expert": 1024, "vocab": 4_000_000, "hidden_size": 131_072, "d_model": 131_072}
_LARGEST_OTHER = 2**31
# Would fetch code or kernels, or change what the linear modules are.
_IGNORED = (
    "auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "experts_implementation",
    "_experts_implementation", "_name_or_path", "name_or_path", "torch_dtype", "dtype", "transformers_version",
)  # fmt: skip
_TASKS = (
    ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
    ("ForCausalLM", "CAUSAL_LM"),
    ("LMHeadModel", "CAUSAL_LM"),
    ("ForSequenceClassification", "SEQ_CLS"),
    ("ForTokenClassification", "TOKEN_CLS"),
    ("ForQuestionAnswering", "QUESTION_ANS"),
)


@dataclass
class BaseShapes:
    """A base model by its sizes. `matrices`: full module path -> (in, out) of every linear module.

    `transposed` are those that store their weight as (in, out), as GPT-2's Conv1D does; `embeddings`: module path ->
    (rows, width); `parameters` counts tied weights once.
    """

    architecture: str
    task_type: str
    matrices: dict[str, tuple[int, int]]
    transposed: list[str] = field(default_factory=list)
    embeddings: dict[str, tuple[int, int]] = field(default_factory=dict)
    parameters: int = 0


def compute_shapes(config: bytes) -> BaseShapes:
    """Sizes of the base model that `config`, the bytes of a config.json, describes.

    Takes some seconds in a process of its own. Raises ConfigRefused with a sentence.
    """
    check_config_bytes(config)
    try:
        answer = jail.run_module("registry.shapes", stdin=config, limits=LIMITS)
    except JailFailed as error:
        raise ConfigRefused(f"No sizes can be computed from this config.json. {error.message}") from None
    return from_json(json.loads(answer.stdout))


def from_json(value: dict[str, Any]) -> BaseShapes:
    return BaseShapes(
        architecture=value["architecture"],
        task_type=value["task_type"],
        matrices={path: (sizes[0], sizes[1]) for path, sizes in value["matrices"].items()},
        transposed=value["transposed"],
        embeddings={path: (sizes[0], sizes[1]) for path, sizes in value["embeddings"].items()},
        parameters=value["parameters"],
    )


def check_config_bytes(config: bytes) -> dict[str, Any]:
    """The config as a dict if nothing in it is absurd. Raises ConfigRefused; cheap enough for a web process."""
    if len(config) > MAX_CONFIG_BYTES:
        raise ConfigRefused(
            f"This config.json is longer than {MAX_CONFIG_BYTES:,} bytes. "
            "Give the config.json of the base model, not its tokeniser's."
        )
    try:
        value = parse_json_object(config, "config.json")
    except ConfigUnreadable as error:
        raise ConfigRefused(str(error)) from None
    if not isinstance(value.get("model_type"), str):
        hint = " This is the config of an adapter." if "peft_type" in value else ""
        raise ConfigRefused(
            f"This config.json has no “model_type”, so it is not a transformers model's.{hint} "
            "Give the config.json that lies beside the base model's weights."
        )
    for key, number in _numbers(value):
        allowed = next((limit for part, limit in _LARGEST.items() if part in key), _LARGEST_OTHER)
        if abs(number) > allowed:
            raise ConfigRefused(
                f"“{show(key)[:60]}” is {number if abs(number) < 10**12 else 'enormous'} in this config.json; "
                f"at most {allowed:,} is accepted."
            )
    return value


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _numbers(child, name)
    elif isinstance(value, list):
        for child in value:
            # A list's numbers are ids or places, not counts.
            yield from _numbers(child, "")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


# --- Inside the jail ---------------------------------------------------------------------------------------


def shapes_on_meta(config: dict[str, Any]) -> BaseShapes:
    """Build the model on the meta device and read its shapes. Imports torch and transformers.

    Raises ConfigRefused if transformers does not know the architecture or cannot build it from these numbers.
    """
    import torch
    from transformers import AutoConfig

    model_type = config["model_type"]
    settings = {key: value for key, value in config.items() if key not in _IGNORED and key != "model_type"}
    try:
        parsed = AutoConfig.for_model(model_type, **settings)
    except Exception as error:  # third-party code on a stranger's numbers may raise anything
        raise ConfigRefused(_unknown_or_broken(model_type, config, error)) from error
    model_class = _class_for(parsed, config.get("architectures"))
    parsed._attn_implementation = "eager"
    try:
        with torch.device("meta"):
            model = model_class(parsed)
    except Exception as error:  # see above
        raise ConfigRefused(
            f"transformers cannot build {model_class.__name__} from these numbers: {_first_line(error)}"
        ) from error
    shapes = _read_shapes(model, model_class.__name__, parsed)
    shapes.parameters += _untied_rows(model, config)
    return shapes


def _unknown_or_broken(model_type: str, config: dict[str, Any], error: Exception) -> str:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type in CONFIG_MAPPING:
        return f"The numbers in this config.json do not go together: {_first_line(error)}"
    code = " Its own code (“auto_map”) is never run here." if "auto_map" in config else ""
    return (
        f"transformers {transformers.__version__} does not know the architecture "
        f"“{show(model_type)[:60]}”.{code}"
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return show(lines[0] if lines else type(error).__name__)[:200]


def _class_for(parsed: Any, architectures: Any) -> Any:
    """The model class that the config names, else the one with a language model head, else the bare model."""
    import transformers
    from transformers.models.auto import modeling_auto

    names = architectures if isinstance(architectures, list) else []
    known = {
        name
        for mapping in vars(modeling_auto).values()
        if isinstance(mapping, modeling_auto._LazyAutoMapping)
        for name in _names_in(mapping, type(parsed))
    }
    for name in names:
        if isinstance(name, str) and name in known:
            return getattr(transformers, name)
    for mapping in (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
        modeling_auto.MODEL_MAPPING,
    ):
        if type(parsed) in mapping:
            found = mapping[type(parsed)]
            return found[0] if isinstance(found, (list, tuple)) else found
    raise ConfigRefused(f"transformers has no model for configs of type “{show(parsed.model_type)[:60]}”.")


def _names_in(mapping: Any, config_class: type) -> Iterator[str]:
    """Names of the model classes that `mapping` has for `config_class`, so that no other name is ever looked up."""
    if config_class not in mapping:
        return
    found = mapping[config_class]
    for one in found if isinstance(found, (list, tuple)) else (found,):
        yield one.__name__


def _read_shapes(model: Any, architecture: str, parsed: Any) -> BaseShapes:
    import torch
    from transformers.pytorch_utils import Conv1D

    shapes = BaseShapes(architecture=architecture, task_type=_task_of(architecture, parsed), matrices={})
    for path, module in model.named_modules():
        if isinstance(module, Conv1D):
            in_features, out_features = module.weight.shape
            shapes.matrices[path] = (in_features, out_features)
            shapes.transposed.append(path)
        elif isinstance(module, torch.nn.Linear):
            shapes.matrices[path] = (module.in_features, module.out_features)
        elif isinstance(module, torch.nn.Embedding):
            shapes.embeddings[path] = (module.num_embeddings, module.embedding_dim)
    shapes.parameters = sum(parameter.numel() for parameter in model.parameters())
    if not shapes.matrices:
        raise ConfigRefused(f"{architecture} has no linear matrices, so no LoRA module can fit it.")
    return shapes


def _untied_rows(model: Any, config: dict[str, Any]) -> int:
    """Parameters of an output matrix that the published weights hold apart, but transformers ties all the same (T5)."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = head is not None and table is not None and head.weight is table.weight
    return head.weight.numel() if is_tied and config.get("tie_word_embeddings") is False else 0


def _task_of(architecture: str, parsed: Any) -> str:
    for ending, task in _TASKS:
        if architecture.endswith(ending):
            if task == "SEQ_2_SEQ_LM" and not getattr(parsed, "is_encoder_decoder", False):
                return "CAUSAL_LM"  # pictures and text in, text out
            return task
    return ""


def main() -> None:
    raw = sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1)
    try:
        shapes = shapes_on_meta(check_config_bytes(raw))
    except ConfigRefused as error:
        jail.refuse(error.message)
        return
    json.dump(vars(shapes), sys.stdout)


if __name__ == "__main__":
    main()
