"""Pictures to click on."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from hub.errors import DataError
from space import samples
from space.languages import Say


def test_installed_packages_bring_pictures():
    found = samples.samples_for()
    assert [sample.name for sample in found] == ["cat", "cheetah", "lion", "tower"]
    for sample in found:
        assert Image.open(io.BytesIO(sample.thumbnail)).size == (samples.THUMBNAIL, samples.THUMBNAIL)


def test_a_folder_comes_first_and_broken_files_stay_out(tmp_path, capsys):
    for name in ("b_dog.png", "a.jpg", ".hidden.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / name)
    (tmp_path / "c.jpg").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    (tmp_path / "folder.jpg").mkdir()
    assert [sample.name for sample in samples.samples_for(tmp_path)][:3] == ["a", "b dog", "cat"]
    assert "c.jpg is text" in capsys.readouterr().err


def test_a_large_folder_is_cut(tmp_path, capsys):
    for index in range(samples.MOST + 3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index:03}.png")
    found = samples.samples_for(tmp_path)
    assert [sample.name for sample in found][samples.MOST - 1 : samples.MOST + 1] == ["023", "cat"]
    assert f"the first {samples.MOST} are offered" in capsys.readouterr().err


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"^There is no folder .*missing; check what --samples names\.$"):
        samples.samples_for(tmp_path / "missing")


def test_captions_stay_text(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "<b>{{x}}.png")
    text = samples.buttons(Say("de"), samples.samples_for(tmp_path))
    assert "<b>" not in text
    assert "{{" not in text
    assert text.count("<button") == 5
    assert "Gepard" in text
