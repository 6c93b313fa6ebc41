import pytest

from registry.filenames import check_names, sort_files


def sentence(*names: str) -> str:
    return check_names(names)[0].message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("notes\u202egpj.txt", "U+202E"),
        ("caf\u00e9.txt", "U+00E9"),
        ("a\nb.txt", "U+000A"),
        ("nul\x00.txt", "U+0000"),
        ("a\\b.txt", "backslash"),
        ("/etc/passwd", "absolute"),
        ("C:/x.txt", "absolute"),
        ("a//b.txt", "an empty segment"),
        ("./a.txt", "the segment “.”"),
        ("a/../b.txt", "the segment “..”"),
        ("x" * 256, "256 bytes"),
        ("", "empty name"),
    ],
)
def test_a_bad_name_is_refused_in_words(name, words):
    assert words in sentence(name)


@pytest.mark.parametrize(
    "names",
    [
        ("README.md", "readme.md"),
        ("adapter_config.json", "Adapter_Config.json"),
        ("notes.txt", "notes.txt."),
    ],
)
def test_two_names_that_fold_to_one_are_refused(names):
    assert "the same name on many systems" in sentence(*names)


def test_names_that_print_are_accepted():
    assert (
        check_names(["adapter_config.json", "pictures/loss curve (1).png", "checkpoint-100/notes.md"]) == []
    )


def test_more_than_a_thousand_files_are_refused():
    assert "at most 1,000" in sentence(*(f"{number}.txt" for number in range(1001)))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("training_args.bin", b"PK", "code that runs"),
        ("optimizer.pt", b"\x80\x02", "code that runs"),
        ("model.safetensors", b"\x00" * 16, "one weight file"),
        ("checkpoint-1/adapter_model.safetensors", b"\x00" * 16, "one weight file"),
        ("tokenizer.model", b"\x0a\x0b", "Only texts"),
        ("page.html", b"<p>", "Only texts"),
        ("drawing.svg", b"<svg/>", "Only texts"),
        ("picture.png", b"<script>", "not those of a PNG"),
        ("notes.txt", b"\xff\xfe", "not UTF-8"),
        ("notes.txt", b"a\x00b", "NUL"),
        ("notes.txt", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        ("big.json", b" " * (1024 * 1024 + 1), "limit is 1,048,576"),
    ],
)
def test_other_files_are_left_out_with_a_reason(tmp_path, name, content, why):
    path = tmp_path / "bytes"
    path.write_bytes(content)
    kept, left_out = sort_files({name: path})
    assert kept == []
    assert why in left_out[0]["why"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LICENSE", b"MIT"),
        ("eval/results.json", b"{}"),
        ("loss.png", b"\x89PNG\r\n\x1a\n123"),
        (".gitattributes.txt", b"*"),
    ],
)
def test_small_texts_and_pictures_are_kept(tmp_path, name, content):
    path = tmp_path / "bytes"
    path.write_bytes(content)
    assert sort_files({name: path}) == ([name], [])
