"""Code for using an adapter, ready to copy: the one place where it is written, so that pages and tests agree.

Only what this server answers today is offered.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from django.urls import reverse

from registry.filenames import WEIGHTS
from registry.models import Adapter, BaseModel, Revision

_AUTO_CLASSES = {
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


@dataclass(frozen=True)
class Snippet:
    """One way to use an adapter. `note` says what the reader has to know besides."""

    name: str
    title: str
    text: str
    note: str = ""


def snippets_for(adapter: Adapter, revision: Revision, *, site: str) -> list[Snippet]:
    """Every way to use this revision, the most usual first. `site` is our address without a slash at the end."""
    made = [
        _peft(adapter, revision, site),
        _transformers(adapter, revision, site),
        _hf(adapter, revision, site),
        _curl(adapter, revision, site),
    ]
    if _auto_class(adapter, revision) == "AutoModelForCausalLM":
        made.append(_vllm(adapter, revision, site))
    return made


def archive_address(adapter: Adapter, revision: Revision, site: str) -> str:
    """Where a script fetches all files of a revision; it may send a token."""
    address = reverse("api_archive", args=[adapter.namespace.name, adapter.name])
    return f"{site}{address}?revision={revision.short_commit}"


def file_address(adapter: Adapter, revision: Revision, path: str, site: str) -> str:
    """Where a script fetches one file of a revision."""
    address = reverse("api_file", args=[adapter.namespace.name, adapter.name, path])
    return f"{site}{address}?revision={revision.short_commit}"


def _auto_class(adapter: Adapter, revision: Revision) -> str:
    task_type = revision.fact("task_type") or (adapter.base_model.task_type if adapter.base_model else "")
    return _AUTO_CLASSES.get(task_type, "AutoModel")


def _loading(adapter: Adapter, revision: Revision, site: str) -> list[str]:
    """Python lines that fetch the adapter, and a base model that is hosted here, and load the base model."""
    auto = _auto_class(adapter, revision)
    base = json.dumps(_base_name(adapter))  # a label can be any text; quoted, it stays one
    if adapter.base_model and adapter.base_model.is_hosted:
        base = f"snapshot_download({base}, endpoint=here)"
    arguments = [f'"{adapter.full_name}"', f'revision="{revision.short_commit}"', "endpoint=here"]
    if adapter.is_private:
        arguments.append('token=os.environ["LORA_COMMONS_TOKEN"]')
    return [
        f'here = "{site}"',
        f"base = {base}",
        "adapter = snapshot_download(",
        *(f"    {argument}," for argument in arguments),
        ")",
        "",
        "tokenizer = AutoTokenizer.from_pretrained(base)",
        f"model = {auto}.from_pretrained(base)",
    ]


def _imports(adapter: Adapter, revision: Revision, *, peft: bool) -> list[str]:
    lines = ["# pip install peft transformers"]
    lines += ["import os", ""] if adapter.is_private else []
    lines += ["from huggingface_hub import snapshot_download"]
    lines += ["from peft import PeftModel"] if peft else []
    return [*lines, f"from transformers import {_auto_class(adapter, revision)}, AutoTokenizer", ""]


def _base_name(adapter: Adapter) -> str:
    """The id of the base model, ours or a hub's."""
    if adapter.base_model:
        return adapter.base_model.name
    return adapter.base_model_label or "BASE_MODEL"


def _prompt(adapter: Adapter, revision: Revision) -> list[str]:
    """A prompt, as it was trained with if its owner said how, and what the model answers where it writes text."""
    prompt = '"your text"'
    if adapter.prompt_template:
        template = json.dumps(adapter.prompt_template, ensure_ascii=False)  # quoted, it stays one text
        prompt = f'{template}.replace("{{input}}", "your text")'
    auto = _auto_class(adapter, revision)
    if auto not in {"AutoModelForSeq2SeqLM", "AutoModelForCausalLM"}:
        return ["", f"prompt = {prompt}"] if adapter.prompt_template else []
    # A causal model repeats its prompt before it goes on.
    new = "answer[0]" if auto == "AutoModelForSeq2SeqLM" else 'answer[0][inputs["input_ids"].shape[1]:]'
    return [
        "",
        f"prompt = {prompt}",
        'inputs = tokenizer(prompt, return_tensors="pt")',
        "answer = model.generate(**inputs, max_new_tokens=32)",
        f"print(tokenizer.decode({new}, skip_special_tokens=True))",
    ]


def _note(adapter: Adapter) -> str:
    if adapter.base_model or adapter.base_model_label:
        return ""
    return "Nobody said which base model this needs: put it in place of BASE_MODEL."


def _peft(adapter: Adapter, revision: Revision, site: str) -> Snippet:
    lines = [
        *_imports(adapter, revision, peft=True),
        *_loading(adapter, revision, site),
        "model = PeftModel.from_pretrained(model, adapter)",
        *_prompt(adapter, revision),
    ]
    return Snippet("peft", "peft", "\n".join(lines), _note(adapter))


def _transformers(adapter: Adapter, revision: Revision, site: str) -> Snippet:
    lines = [
        *_imports(adapter, revision, peft=False),
        *_loading(adapter, revision, site),
        "model.load_adapter(adapter)",
        *_prompt(adapter, revision),
    ]
    return Snippet("transformers", "transformers", "\n".join(lines), _note(adapter))


def _hf(adapter: Adapter, revision: Revision, site: str) -> Snippet:
    lines = [*_hub_variables(adapter, site), _hf_download(adapter, revision)]
    return Snippet("hf", "hf", "\n".join(lines), "Comes with huggingface_hub: pip install huggingface_hub.")


def _hub_variables(adapter: Adapter, site: str) -> list[str]:
    token = ['export HF_TOKEN="$LORA_COMMONS_TOKEN"'] if adapter.is_private else []
    return [f"export HF_ENDPOINT={site}", *token]


def _hf_download(adapter: Adapter, revision: Revision) -> str:
    return (
        f"hf download {adapter.full_name} \\\n  --revision {revision.short_commit} --local-dir {adapter.name}"
    )


def _curl(adapter: Adapter, revision: Revision, site: str) -> Snippet:
    header = ' -H "Authorization: Bearer $LORA_COMMONS_TOKEN"' if adapter.is_private else ""
    lines = [
        "# the whole adapter",
        f"curl -fL{header} -o {adapter.name}.zip \\",
        f"  '{archive_address(adapter, revision, site)}'",
        f"unzip {adapter.name}.zip",
        "",
        "# one file; a broken download goes on where it stopped",
        f"curl -fL{header} -C - -o {WEIGHTS} \\",
        f"  '{file_address(adapter, revision, WEIGHTS, site)}'",
    ]
    return Snippet("curl", "curl", "\n".join(lines))


def _vllm(adapter: Adapter, revision: Revision, site: str) -> Snippet:
    base = shlex.quote(_base_name(adapter))
    lines = [*_hub_variables(adapter, site), _hf_download(adapter, revision)]
    if adapter.base_model and adapter.base_model.is_hosted:
        base = adapter.base_model.short_name
        lines.append(f"hf download {adapter.base_model.name} --local-dir {base}")
    lines += [
        "unset HF_ENDPOINT HF_TOKEN",
        f"vllm serve {base} --enable-lora \\",
        f"  --max-lora-rank {_vllm_rank(adapter.rank or 16)} \\",
        f"  --lora-modules {adapter.name}=./{adapter.name}",
    ]
    return Snippet("vllm", "vLLM", "\n".join(lines), "vLLM serves LoRA for the architectures it knows.")


def base_model_snippet(base_model: BaseModel, *, site: str) -> str:
    """How to fetch a base model that is hosted here."""
    name = base_model.short_name
    archive = reverse("base_model_archive", args=[base_model.name])
    return f"curl -fL -o {name}.zip \\\n  {site}{archive}\nunzip {name}.zip"


def _vllm_rank(rank: int) -> int:
    """The smallest of the ranks that vLLM offers which holds this one."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), 512)
