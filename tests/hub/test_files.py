"""Folders are written whole or not at all, whoever is killed at whatever moment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub import StorageError
from hub.files import _flush, _swap, folder_aside

ROOT = Path(__file__).parents[2]
KILLED = """
import sys
from pathlib import Path
from hub.files import folder_aside
with folder_aside(Path(sys.argv[1])) as folder:
    (folder / "a.txt").write_text("half a sen")
    print("in the middle", flush=True)
    sys.stdin.read()
"""


def write(folder: Path, text: str) -> None:
    """Replace the folder by one that holds this text alone."""
    with folder_aside(folder) as new:
        (new / "a.txt").write_text(text)


def beside(folder: Path) -> list[str]:
    """What lies beside a folder."""
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


@pytest.fixture
def folder(tmp_path):
    """A folder that was written before."""
    write(tmp_path / "a[1]" / "mine", "old")
    return tmp_path / "a[1]" / "mine"


def text(folder: Path) -> str:
    """What the folder holds."""
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    return (folder / "a.txt").read_text()


def test_a_folder_is_replaced_as_a_whole(folder):
    assert (text(folder), beside(folder)) == ("old", [])
    write(folder, "new")
    assert (text(folder), beside(folder)) == ("new", [])


def stop_in_the_middle(new: Path, error: type[BaseException]) -> None:
    """Write half a text."""
    (new / "a.txt").write_text("half")
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, KeyError])
def test_what_is_raised_leaves_the_old_one(folder, error):
    with pytest.raises(error), folder_aside(folder) as new:
        stop_in_the_middle(new, error)
    assert (text(folder), beside(folder)) == ("old", [])


def test_a_full_disk_is_one_sentence(folder):
    with pytest.raises(StorageError, match="Cannot write to .*mine: no space left"), folder_aside(folder):
        raise OSError(28, "No space left on device")
    assert (text(folder), beside(folder)) == ("old", [])


def test_a_kill_leaves_the_old_one_and_the_next_call_clears_up_but_not_while_the_other_lives(folder):
    command = [sys.executable, "-c", KILLED, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in the middle\n"
    write(folder, "newer")
    assert len(beside(folder)) == 1  # it may still be filled
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert text(folder) == "newer"
    write(folder, "newest")
    assert (text(folder), beside(folder)) == ("newest", [])


def killed_between_the_renames(folder: Path) -> None:
    """Leave what a kill between the last two renames leaves: the old one aside, nothing in its place."""
    aside = folder.with_name(f".{folder.name}.part-abcd")
    (aside / "new").mkdir(parents=True)
    (aside / "lock").touch()
    folder.rename(aside / "old")


def test_a_kill_between_the_last_two_renames_loses_nothing(folder):
    killed_between_the_renames(folder)
    with pytest.raises(KeyError), folder_aside(folder):
        raise KeyError
    assert (text(folder), beside(folder)) == ("old", [])


def test_folders_that_only_look_like_leftovers_stay(folder):
    strangers = [".mine.part-1", ".mine.part-2", ".mine.part"]
    for name in strangers:
        (folder.parent / name).mkdir()
    (folder.parent / ".mine.part-2" / "lock").touch()
    (folder.parent / ".mine.part-2" / "diary.txt").touch()
    write(folder, "new")
    assert beside(folder) == sorted(strangers)


def test_a_rename_that_fails_is_undone(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        _swap(tmp_path / "nothing", folder, tmp_path / "aside")
    assert text(folder) == "old"


def test_every_file_is_on_the_disk_before_the_rename(folder, monkeypatch):
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").touch()
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    _flush(folder)
    assert len(flushed) == 2
