from pathlib import Path

import pytest

from demo import build
from demo.collection import T5


def test_an_interrupted_stage_leaves_nothing_that_looks_finished(tmp_path: Path):
    folder = tmp_path / "modules" / "plain-tools" / "who-plain"
    with pytest.raises(KeyboardInterrupt):
        begin_and_interrupt(folder)
    assert not folder.exists()


def begin_and_interrupt(folder: Path) -> None:
    with build._whole_folder(folder) as unfinished:
        (unfinished / "adapter_config.json").write_text("{}")
        raise KeyboardInterrupt


def test_what_is_there_already_is_kept(tmp_path: Path):
    folder = build.module_folder(tmp_path, T5, T5.trained[0])
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"finished")
    assert build.build_module(tmp_path, T5, T5.trained[0]).endswith("kept")
    assert (folder / "adapter_model.safetensors").read_bytes() == b"finished"


def test_beginning_again_removes_what_a_build_wrote_and_nothing_else(tmp_path: Path):
    out = tmp_path / "demo"
    build.write_texts(out)
    (out / "README.md").write_text("kept")
    build.clear(out)
    assert [path.name for path in out.iterdir()] == ["README.md"]


def test_seeds_are_the_same_everywhere():
    assert build.seed_of("story-t5") == build.seed_of("story-t5") != build.seed_of("story-llama")
