import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from registry.conversion import ConversionRefused, check_declared_sizes, convert
from registry.errors import InspectionRefused
from registry.inspection import inspect_folder
from tests.fake_adapters import TINY_MATRICES, fake_tensors, files_of, make_adapter


def state() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in fake_tensors().items()}


def saved(tmp_path, value, **options):
    path = tmp_path / "adapter_model.bin"
    torch.save(value, path, **options)
    return path


def refusal(path) -> str:
    with pytest.raises(ConversionRefused) as caught:
        check_declared_sizes(path)
    return str(caught.value)


@pytest.fixture
def legacy(tmp_path):
    """A folder as an old peft wrote it."""
    folder = make_adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    saved(folder, state())
    return folder


def test_a_legacy_file_is_converted_and_inspected_like_every_other(legacy, tmp_path):
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    found = inspect_folder(files_of(legacy), TINY_MATRICES, workspace=workspace)
    assert found.composable
    assert sorted(found.files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert found.files["adapter_model.safetensors"].parent == workspace
    assert "It was converted to adapter_model.safetensors" in found.warnings[0]
    converted = load_file(found.files["adapter_model.safetensors"])
    assert all(torch.equal(converted[name], value) for name, value in state().items())


def test_a_legacy_file_beside_the_same_weights_is_left_out_and_beside_others_refused(tmp_path):
    folder = make_adapter(tmp_path)
    saved(folder, state())
    assert inspect_folder(files_of(folder)).left_out[0]["path"] == "adapter_model.bin"
    saved(folder, {name: value + 1 for name, value in state().items()})
    with pytest.raises(InspectionRefused, match="hold different weights"):
        inspect_folder(files_of(folder))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(legacy, tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    saved(legacy, {**state(), "x": Payload()})
    with pytest.raises(InspectionRefused) as caught:
        inspect_folder(files_of(legacy))
    assert "It holds an object of posix.system, not only plain tensors" in caught.value.message
    assert not marker.exists()


def test_a_small_file_that_describes_an_enormous_tensor_is_refused_before_any_copy(tmp_path):
    path = saved(tmp_path, {"a": torch.zeros(1).expand(100_000, 100_000)})
    assert path.stat().st_size < 2_000
    assert "but the file has only" in refusal(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = saved(tmp_path, {"a": torch.zeros(4)})
    rewrite_pickle(path, lambda raw: raw.replace(b"K\x04\x85", b"K\x40\x85"))
    assert "reaches beyond its storage" in refusal(path)


def test_a_storage_that_the_file_does_not_hold_is_refused(tmp_path):
    path = saved(tmp_path, {"a": torch.zeros(4)})
    rewrite_pickle(path, lambda raw: raw.replace(b"K\x04tq", b"J\x00\x00\x00\x7ftq"))
    assert "declares a storage of" in refusal(path)


def rewrite_pickle(path, change) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in records if name.endswith("/data.pkl"))
    assert change(records[name]) != records[name]
    records[name] = change(records[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for record, raw in records.items():
            archive.writestr(record, raw)


def test_a_compressed_archive_is_refused(tmp_path):
    path = saved(tmp_path, {"a": torch.zeros(4)})
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, raw in records.items():
            archive.writestr(record, raw)
    assert "compressed or encrypted" in refusal(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([torch.zeros(2)], "holds no state dict"),
        ({"a": 3}, "is no plain tensor"),
        ({"model": {"a": torch.zeros(2)}}, "is no plain tensor"),
        ({3: torch.zeros(2)}, "is no plain tensor"),
        ({"a": torch.zeros(2).to_sparse()}, "not only plain tensors"),
    ],
)
def test_anything_but_a_flat_state_dict_is_refused(tmp_path, value, words):
    assert words in refusal(saved(tmp_path, value))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a file that torch.save wrote"),
        (pickle.dumps({"a": 1}), "not a file that torch.save wrote"),
        (b"\x00" * 100, "not a file that torch.save wrote"),
    ],
)
def test_other_bytes_under_the_name_are_refused(tmp_path, content, words):
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(content)
    assert words in refusal(path)


def test_the_format_before_torch_1_6_is_refused_with_what_to_do(tmp_path):
    path = saved(tmp_path, state(), _use_new_zipfile_serialization=False)
    assert "Load it with torch and save it as safetensors" in refusal(path)


def test_a_broken_pickle_is_refused(tmp_path):
    path = tmp_path / "adapter_model.bin"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cgarbage")
    path.write_bytes(stream.getvalue())
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_sizes_of_every_float_type_are_understood(tmp_path, dtype):
    check_declared_sizes(
        saved(tmp_path, {"a": torch.zeros(3, 5, dtype=dtype).t(), "b": torch.nn.Parameter(torch.ones(2))})
    )


def test_a_refused_conversion_leaves_no_file_behind(tmp_path):
    source = saved(tmp_path, {"a": 3})
    target = tmp_path / "out.safetensors"
    with pytest.raises(InspectionRefused):
        convert(source, target)
    assert not target.exists()
