from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from django.test import Client

from registry import commits, hub_work, long_work, tasks, weight_pictures, weight_statistics
from registry.models import WeightStatistics
from registry.safetensors_header import TensorInfo
from tests.factories import make_adapter, make_base_model, make_user, publish_fake

pytestmark = pytest.mark.django_db


def test_singular_values_from_the_small_factors_are_those_of_the_whole_product():
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((4, 30)), generator.standard_normal((20, 4))
    whole = np.linalg.svd(b @ a, compute_uv=False)[:4]
    assert weight_statistics.singular_values(a, b) == pytest.approx(whole)


def test_published_weights_get_a_norm_and_a_spectrum_for_every_matrix(tmp_path: Path):
    make_base_model()
    adapter = publish_fake(tmp_path, "pictured", config={"lora_alpha": 8})
    assert weight_statistics.compute_missing() == 1
    assert weight_statistics.compute_missing() == 0
    kept = WeightStatistics.objects.get(revision=adapter.head)
    assert len(kept.matrices) == adapter.head.facts["target_matrices"]
    for matrix in kept.matrices:
        assert matrix["rank"] == 2
        assert matrix["norm"] == pytest.approx(np.linalg.norm(matrix["singular_values"]), rel=1e-3)
    page = Client().get("/" + adapter.full_name).content.decode()
    assert "Singular values, as shares of the largest" in page


def test_pictures_stay_while_neither_the_weights_nor_what_scales_them_change(tmp_path: Path):
    make_base_model()
    ada = make_user("ada")
    adapter = publish_fake(tmp_path, "pictured", owner=ada)
    weight_statistics.compute_missing()
    old = WeightStatistics.objects.get()
    assert adapter.head is not None
    for text in ("# Colours\n", "# More colours\n"):
        head = commits.branch_head(adapter, "main")
        head = commits.write_card(adapter, actor=ada, text=text, parent=head.commit).revision
        kept = WeightStatistics.objects.get(revision=head)
        assert (kept.matrices, kept.version) == (old.matrices, old.version)
    assert weight_statistics.compute_missing() == 0
    changed = publish_fake(tmp_path, "pictured", owner=ada, config={"lora_alpha": 64})
    assert not WeightStatistics.objects.filter(revision=changed.head).exists()


def test_why_there_is_no_picture_is_asked_again_of_the_next_version(tmp_path: Path):
    make_base_model()
    ada = make_user("ada")
    adapter = publish_fake(tmp_path, "pictured", owner=ada)
    assert adapter.head is not None
    WeightStatistics.objects.create(revision=adapter.head, problem="The store was away.", version=1)
    commits.write_card(adapter, actor=ada, text="# Colours\n", parent="")
    assert weight_statistics.compute_missing() == 1


def test_pictures_and_imports_leave_the_other_threads_of_their_worker_to_what_is_urgent(monkeypatch):
    """Either would take all of them: the clock rings for pictures every 20 seconds, and drawing may take minutes."""
    adapter = make_adapter("empty", facts={"rank": 4})
    steps: list[str] = []

    def run_step(worker: str) -> bool:
        steps.append(worker)
        return len(steps) < 2

    monkeypatch.setattr(hub_work, "run_step", run_step)
    with long_work.alone() as may_work:
        assert may_work
        tasks.draw_weights()
        tasks.sweep_storage()
        assert hub_work.run_all("w") == 0
    assert not steps
    assert not WeightStatistics.objects.exists()

    assert hub_work.run_all("w") == 1
    assert WeightStatistics.objects.get().revision == adapter.head, "drawn between two steps of an import"


def test_twice_the_alpha_is_twice_the_change(tmp_path: Path):
    make_base_model()
    norms = []
    for alpha in (4, 8):
        adapter = publish_fake(tmp_path, f"alpha-{alpha}", config={"lora_alpha": alpha})
        assert adapter.head is not None
        norms.append(weight_statistics.compute(adapter.head).matrices[0]["norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-3)


def test_what_cannot_be_pictured_says_why_and_is_not_tried_again():
    adapter = make_adapter("empty", facts={"rank": 4})
    weight_statistics.compute_missing()
    assert WeightStatistics.objects.get(revision=adapter.head).problem
    assert weight_statistics.compute_missing() == 0
    assert WeightStatistics.objects.get().problem in Client().get("/" + adapter.full_name).content.decode()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_every_dtype_that_is_accepted_is_read(tmp_path: Path, dtype: str):
    values = np.array([[1.5, -2.0], [0.25, 8.0]])
    if dtype == "BF16":
        raw = (values.astype(np.float32).view("<u4") >> 16).astype("<u2").tobytes()
    else:
        raw = values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()
    path = tmp_path / "weights"
    path.write_bytes(b"xx" + raw)
    read = weight_statistics.read_tensor(path, TensorInfo("a", dtype, (2, 2), 2, 2 + len(raw)))
    assert read.tolist() == values.tolist()


def test_layers_sort_by_number_and_kinds_leave_it_out():
    paths = ["m.block.10.q", "m.block.9.q"]
    assert sorted(paths, key=weight_statistics.natural) == paths[::-1]
    assert sorted(["x.²", "x.3"], key=weight_statistics.natural) == [
        "x.²",
        "x.3",
    ]  # a digit that is no number
    assert weight_pictures.kind_of("encoder.block.3.layer.0.SelfAttention.q") == "encoder SelfAttention.q"
    assert weight_pictures.layer_of("encoder.block.3.layer.0.SelfAttention.q") == 3


def test_the_effective_rank_is_one_for_one_direction_and_the_rank_for_equal_ones():
    assert weight_pictures.effective_rank([3.0, 0.0, 0.0]) == pytest.approx(1)
    assert weight_pictures.effective_rank([2.0, 2.0, 2.0]) == pytest.approx(3)
    assert weight_pictures.effective_rank([]) == 0


def test_pictures_of_weights_that_change_nothing_are_flat_and_break_nothing():
    zero = {"path": "encoder.block.0.q", "rank": 2, "norm": 0.0, "singular_values": [0.0, 0.0]}
    pictures = weight_pictures.draw(WeightStatistics(matrices=[zero]))
    assert pictures is not None
    assert pictures.rows[0].effective_rank == 0


def test_two_versions_are_compared_by_facts_files_and_lines(tmp_path: Path):
    make_base_model()
    ada = make_user("ada")
    publish_fake(tmp_path, "twice", owner=ada, config={"lora_alpha": 4, "card": "One\nsame\n"})
    adapter = publish_fake(tmp_path, "twice", owner=ada, config={"lora_alpha": 8, "card": "Two\nsame\n"})
    page = Client().get(f"/{adapter.full_name}/compare")
    text = page.content.decode()
    assert page.status_code == 200
    assert "alpha" in text
    assert "Two" in text
    assert "README.md" in text
    same = Client().get(f"/{adapter.full_name}/compare?from=main&to=main").content.decode()
    assert "the same" in same
    assert Client().get(f"/{adapter.full_name}/compare?from=nothing").status_code == 404


def test_strangers_compare_no_private_versions(tmp_path: Path):
    make_base_model()
    adapter = publish_fake(tmp_path, "secret", visibility="private")
    assert Client().get(f"/{adapter.full_name}/compare").status_code == 404
