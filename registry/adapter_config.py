"""Reading `adapter_config.json`: strict about what decides the weights' meaning, tolerant about everything else.

No value is ever imported, opened, fetched or run; keys that we do not know are kept as text with the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from registry.errors import Problem
from registry.filenames import CONFIG, is_lfs_pointer, show

MAX_CONFIG_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_RANK = 1024

Rank = Annotated[int, Field(ge=1, le=MAX_RANK)]
# Whole or not: real configs hold 0.5 as well as 100000.
Alpha = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Names = list[str] | str | None


class AdapterConfig(BaseModel):
    """The keys of a LoRA config that decide what its weights mean. Strict: "8", 8.0 and true are no rank."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    peft_type: Literal["LORA"]
    r: Rank
    lora_alpha: Alpha
    target_modules: Names = None
    exclude_modules: Names = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: Names = None
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, Alpha] | None = None
    lora_dropout: Annotated[float, Field(ge=0, le=1)] | None = None
    bias: Literal["none", "all", "lora_only"] | None = None
    fan_in_fan_out: bool | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    use_qalora: bool | None = None
    base_model_name_or_path: str | None = None
    task_type: str | None = None
    revision: str | None = None
    peft_version: str | None = None
    inference_mode: bool | None = None
    init_lora_weights: bool | str | None = None
    # Below: only whether they are there counts.
    auto_mapping: Any = None
    enable_lora: Any = None
    layer_replication: Any = None
    trainable_token_indices: Any = None
    target_parameters: Any = None
    alora_invocation_tokens: Any = None
    use_bdlora: Any = None
    arrow_config: Any = None
    kasa_config: Any = None
    velora_config: Any = None
    monteclora_config: Any = None

    @field_validator("lora_alpha", "lora_dropout", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a number is expected, not true or false")
        return value

    @property
    def base_model_label(self) -> str:
        return (self.base_model_name_or_path or "").strip()

    @property
    def base_model_is_local(self) -> bool:
        """Whether the base model is named by a path on somebody's machine."""
        return is_local_path(self.base_model_label)


def is_local_path(label: str) -> bool:
    """Whether `label` can only be a path, not an id such as `gpt2` or `google/flan-t5-large`."""
    if not label:
        return False
    return (
        label.startswith(("/", ".", "~"))
        or "\\" in label
        or label.endswith("/")
        or label.count("/") > 1
        or bool(PureWindowsPath(label).drive)
    )


class ConfigUnreadable(Exception):
    """The config is refused; holds every problem found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems[0].message)
        self.problems = problems


def read_config(path: Path) -> AdapterConfig:
    """The LoRA config in the file at `path`. Raises ConfigUnreadable with every problem found."""
    return check_config(read_json_object(path, CONFIG, limit=MAX_CONFIG_BYTES))


def read_json_object(path: Path, file: str, *, limit: int) -> dict[str, Any]:
    """The one JSON object in a file of at most `limit` bytes, without duplicate keys and not nested too deep.

    Raises ConfigUnreadable. `file` is the file's name for people.
    """
    size = path.stat().st_size
    if size > limit:
        raise _refused(
            file, f"is {size:,} bytes long; the limit is {limit:,}", f"{size} bytes", f"{limit} bytes"
        )
    if is_lfs_pointer(path):
        raise _refused(
            file,
            "is a Git LFS pointer, not the file itself. Fetch the file with “git lfs pull” and upload that",
            "a Git LFS pointer",
            "a JSON object",
        )
    return parse_json_object(path.read_bytes(), file)


def parse_json_object(raw: bytes, file: str) -> dict[str, Any]:
    """The one JSON object in `raw`; see `read_json_object`."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _refused(
            file,
            "begins with a byte order mark, which peft cannot read. Save it as UTF-8 without one",
            "a byte order mark",
            "{",
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(file, f"is not UTF-8 (byte {error.start})", "other bytes", "UTF-8") from None
    if not text.strip():
        raise _refused(file, "is empty", "nothing", "a JSON object")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _Duplicate as error:
        key = show(str(error))[:100]
        raise _refused(file, f"has the key “{key}” twice", f"{key} twice", "every key once", key) from None
    except RecursionError:
        raise _refused(
            file, f"is nested deeper than {MAX_DEPTH} levels", "deep nesting", "flat JSON"
        ) from None
    except ValueError as error:
        reason = show(str(error))[:120]
        raise _refused(file, f"is not valid JSON: {reason}", reason, "a JSON object") from None
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else "a single value"
        raise _refused(file, f"must be one JSON object; it is {found}", found, "a JSON object")
    if _depth(value) > MAX_DEPTH:
        raise _refused(file, f"is nested deeper than {MAX_DEPTH} levels", "deep nesting", "flat JSON")
    for key, odd in _unstorable(value):
        raise _refused(
            file, f"holds the character {odd} at “{show(key)[:100]}”", odd, "printable text", show(key)[:100]
        )
    return value


class _Duplicate(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _Duplicate(key)
        result[key] = value
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
    return deepest


def _unstorable(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys under which NUL or half a surrogate pair stands: neither Postgres nor UTF-8 can hold them."""
    if isinstance(value, str):
        for letter in value:
            if letter == "\x00" or "\ud800" <= letter <= "\udfff":
                yield key, f"U+{ord(letter):04X}"
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _unstorable(name, key or "a key")
            yield from _unstorable(child, name)
    elif isinstance(value, list):
        for child in value:
            yield from _unstorable(child, key)


def _refused(file: str, what: str, found: str, expected: str, where: str = "") -> ConfigUnreadable:
    return ConfigUnreadable(
        [Problem(file=file, where=where, message=f"{file} {what}.", found=found, expected=expected)]
    )


OTHER_METHODS = {
    "IA3": "IA³ scales activations",
    "PREFIX_TUNING": "prefix tuning adds virtual tokens",
    "PROMPT_TUNING": "prompt tuning adds virtual tokens",
    "MULTITASK_PROMPT_TUNING": "prompt tuning adds virtual tokens",
    "P_TUNING": "p-tuning adds virtual tokens",
    "ADALORA": "AdaLoRA keeps singular values beside A and B",
    "XLORA": "X-LoRA is a mixture of several adapters",
}


def check_config(config: dict[str, Any]) -> AdapterConfig:
    """`config` as a LoRA config. Raises ConfigUnreadable with every problem, first what kind of file it is instead."""
    other = _other_kind(config)
    if other:
        raise ConfigUnreadable([other])
    try:
        checked = AdapterConfig.model_validate(config)
    except ValidationError as error:
        raise ConfigUnreadable([_type_problem(detail) for detail in _one_for_each_key(error)]) from None
    problems = _pattern_problems(checked)
    if problems:
        raise ConfigUnreadable(problems)
    return checked


def _other_kind(config: dict[str, Any]) -> Problem | None:
    """What the file is when it is no LoRA config of peft's; None if it is one."""

    def problem(what: str, found: str, where: str = "peft_type") -> Problem:
        message = f"{CONFIG} {what}"
        return Problem(file=CONFIG, where=where, message=message, found=found, expected="LORA")

    method = config.get("peft_type")
    if method == "LORA":
        return None
    if isinstance(method, str) and method:
        name = show(method)[:40]
        why = OTHER_METHODS.get(method.upper())
        return problem(
            f"is of peft_type {name}; only LORA modules are kept here"
            + (f" ({why}, which cannot be composed as LoRA)." if why else "."),
            name,
        )
    if method is not None:
        return problem(
            f"has a peft_type that is no text ({show(str(method))[:40]}); expected LORA.", "no text"
        )
    if "fine_tune_type" in config or "lora_parameters" in config or "lora_layers" in config:
        return problem(
            "was written by MLX-LM, not by peft: it has no peft_type. Convert the adapter to the PEFT "
            "format (adapter_model.safetensors with lora_A and lora_B) and upload that.",
            "an MLX-LM config",
        )
    if isinstance(config.get("config"), dict) or ("model_class" in config and "hidden_size" in config):
        return problem(
            "was written by AdapterHub (adapter-transformers), not by peft: it has no peft_type. "
            "Only LoRA modules in the PEFT format are kept here.",
            "an AdapterHub config",
        )
    return problem(
        "has no peft_type, so it is not a file that peft saved. Save the adapter with peft's save_pretrained.",
        "no peft_type",
    )


def _one_for_each_key(error: ValidationError) -> list[ErrorDetails]:
    """A key that may be of several types fails once for each; people need to hear of it once."""
    first: dict[str, ErrorDetails] = {}
    for detail in error.errors(include_url=False):
        first.setdefault(str(detail["loc"][0]), detail)
    return list(first.values())


_EXPECTED = {
    "r": f"a whole number from 1 to {MAX_RANK}",
    "lora_alpha": "a finite number above 0",
    "target_modules": "a list of module names, a pattern, or null",
    "exclude_modules": "a list of module names, a pattern, or null",
    "modules_to_save": "a list of module names or null",
    "layers_to_transform": "a layer number, a list of them, or null",
    "layers_pattern": "a pattern, a list of them, or null",
    "rank_pattern": f"an object of whole numbers from 1 to {MAX_RANK}",
    "alpha_pattern": "an object of finite numbers above 0",
    "lora_dropout": "a number from 0 to 1",
    "bias": "none, all or lora_only",
    "base_model_name_or_path": "a text or null",
    "task_type": "a text or null",
    "init_lora_weights": "true, false or a text",
}


def _type_problem(detail: ErrorDetails) -> Problem:
    key = str(detail["loc"][0])
    expected = _EXPECTED.get(key, "true, false or null" if "bool" in detail["type"] else "a text or null")
    if detail["type"] == "missing":
        return Problem(
            file=CONFIG,
            where=key,
            message=f"{CONFIG} lacks “{key}”; expected {expected}. peft would silently use a number of its own.",
            found="nothing",
            expected=expected,
        )
    found = show(_short(detail["input"]))
    inner = [str(part) for part in detail["loc"][1:] if isinstance(part, int) or key.endswith("_pattern")]
    place = f"“{key}”" + (f" at “{show(inner[0])[:80]}”" if inner else "")
    return Problem(
        file=CONFIG,
        where=key,
        message=f"{CONFIG}: {place} is {found}; expected {expected}.",
        found=found,
        expected=expected,
    )


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # a whole number of thousands of digits
        return "a very long number"
    return text if len(text) <= 60 else text[:60] + "…"


def patterns_of(config: AdapterConfig) -> Iterator[tuple[str, str]]:
    """(key, pattern) for every text of the config that peft uses as a regular expression."""
    for key in ("target_modules", "exclude_modules"):
        value = getattr(config, key)
        if isinstance(value, str):
            yield key, value
    layers = config.layers_pattern
    for pattern in [layers] if isinstance(layers, str) else layers or []:
        yield "layers_pattern", pattern
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, key) or {}:
            yield key, pattern
    for pattern in config.modules_to_save or []:
        yield "modules_to_save", pattern


def _pattern_problems(config: AdapterConfig) -> list[Problem]:
    """Patterns that do not compile in `re`, which peft uses, or in `regex`, which we match with under a time limit."""
    import regex

    problems = []
    for key, pattern in patterns_of(config):
        try:
            re.compile(pattern)
            regex.compile(pattern)
        except (re.error, regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
            shown = show(pattern)[:80]
            problems.append(
                Problem(
                    file=CONFIG,
                    where=key,
                    message=f"{CONFIG}: the pattern “{shown}” in “{key}” is no valid regular expression "
                    f"({show(str(error))[:80]}).",
                    found=shown,
                    expected="a regular expression",
                )
            )
    return problems
