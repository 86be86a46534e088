"""A file of a run that is damaged is one sentence with a remedy, whatever the damage."""

import random

import numpy as np
import pytest

from hub.errors import StorageError
from training.files import DamagedError, read_arrays, read_json, write_arrays, write_json


def damaged(content: bytes) -> list[bytes]:
    """A file's content cut, emptied, filled with zeros, and replaced by something else."""
    cuts = [content[:size] for size in (0, 1, len(content) // 2, len(content) - 2)]
    return [*cuts, bytes(len(content)), b"[]", b"null", b"something else", b"\x93NUMPY\x01\x00", b"\xff\xfe" * 40]


def refused(read, path, content: bytes) -> None:
    """The content is refused by a sentence that names the file and ends with the remedy."""
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"is damaged \(.*\); delete it\.$") as refusal:
        read(path, "delete it")
    assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)


def test_a_damaged_json_file_is_one_sentence(tmp_path):
    path = tmp_path / "settings.json"
    write_json(path, {"a": [1, "ä"]})
    assert read_json(path, "") == {"a": [1, "ä"]}
    for content in damaged(path.read_bytes()):
        refused(read_json, path, content)


def test_a_damaged_file_of_arrays_is_one_sentence(tmp_path):
    path = tmp_path / "checkpoint.npz"
    write_arrays(path, {"state": np.array('{"epoch": 1}'), "weights": np.arange(12.0).reshape(3, 4)})
    whole = path.read_bytes()
    assert read_arrays(path, "")["weights"][2, 3] == 11
    for content in damaged(whole):
        refused(read_arrays, path, content)
    dice = random.Random(0)
    for _ in range(300):  # zeros over a part of it: it is read as it was, or refused
        start = dice.randrange(len(whole))
        path.write_bytes(whole[:start] + bytes(min(200, len(whole) - start)) + whole[start + 200 :])
        try:
            assert read_arrays(path, "").keys() <= {"state", "weights"}
        except DamagedError:
            continue


@pytest.mark.parametrize("read", [read_json, read_arrays])
def test_a_file_that_cannot_be_opened_is_not_called_damaged(read, tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        read(tmp_path / "nowhere", "delete it")
    with pytest.raises(StorageError, match="cannot be read .is a directory"):
        read(tmp_path, "delete it")
