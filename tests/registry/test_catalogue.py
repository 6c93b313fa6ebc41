import re

import pytest

from registry import catalogue
from registry.catalogue import CatalogueEntry, entries, expand

BY_NAME = {entry.name: entry for entry in entries()}
WITH_KNOWN_TOTAL = [entry for entry in entries() if entry.published_parameters]


def sizes(name: str, path: str) -> tuple[int, int]:
    return expand(BY_NAME[name].matrices)[path]


def test_the_catalogue_is_wide_and_small():
    assert len(entries()) >= 200
    assert len({str(entry.matrices) for entry in entries()}) >= 100
    assert catalogue.MATRICES.stat().st_size + catalogue.CONFIGS.stat().st_size < 1_000_000


@pytest.mark.parametrize(
    "kind", ["t5", "mt5", "gpt2", "bloom", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2",
             "gemma3_text", "phi", "phi3", "bert", "roberta", "distilbert", "deberta-v2", "bart", "falcon"]
)  # fmt: skip
def test_every_common_kind_is_there(kind):
    assert any(entry.config["model_type"] == kind for entry in entries())


@pytest.mark.parametrize("entry", WITH_KNOWN_TOTAL, ids=lambda entry: entry.name)
def test_the_numbers_give_the_published_parameter_total(entry: CatalogueEntry):
    assert entry.parameters == entry.published_parameters


def test_nearly_all_totals_are_known():
    assert len(WITH_KNOWN_TOTAL) >= 220


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("google/flan-t5-large", 783),
        ("openai-community/gpt2", 124),
        ("meta-llama/Llama-2-7b-hf", 6738),
        ("mistralai/Mistral-7B-v0.1", 7242),
        ("google/gemma-2-2b", 2614),
        ("FacebookAI/roberta-base", 125),
    ],
)
def test_well_known_sizes(name, millions):
    assert round(BY_NAME[name].parameters / 1e6) == millions


def test_every_name_and_alias_belongs_to_one_base_model_only():
    names = [name.lower() for entry in entries() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) for name in names)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("gpt2", "openai-community/gpt2"),
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("t5-small", "google-t5/t5-small"),
        ("NousResearch/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_old_ids_and_mirrors_are_aliases(alias, name):
    assert alias in BY_NAME[name].aliases


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("google/flan-t5-large", "encoder.block.23.layer.0.SelfAttention.q", (1024, 1024)),
        ("google/flan-t5-large", "decoder.block.0.layer.2.DenseReluDense.wi_1", (1024, 2816)),
        ("google/mt5-small", "decoder.block.7.layer.1.EncDecAttention.o", (384, 512)),
        ("openai-community/gpt2", "transformer.h.11.attn.c_attn", (768, 2304)),
        ("openai-community/gpt2", "transformer.h.0.mlp.c_proj", (3072, 768)),
        ("bigscience/bloom-560m", "transformer.h.0.self_attention.query_key_value", (1024, 3072)),
        ("EleutherAI/pythia-70m", "gpt_neox.layers.5.attention.query_key_value", (512, 1536)),
        ("meta-llama/Meta-Llama-3-8B", "model.layers.31.self_attn.k_proj", (4096, 1024)),
        ("Qwen/Qwen3-0.6B", "model.layers.0.self_attn.q_proj", (1024, 2048)),
        ("facebook/opt-350m", "model.decoder.project_in", (512, 1024)),
        ("distilbert/distilbert-base-uncased", "distilbert.transformer.layer.5.attention.q_lin", (768, 768)),
    ],
)
def test_matrices_have_their_names_and_sizes(name, path, expected):
    assert sizes(name, path) == expected


def test_licences_are_named_where_they_are_known():
    assert sum(bool(entry.license) for entry in entries()) > 200
