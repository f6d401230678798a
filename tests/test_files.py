import gc
import os

import pytest

from segfolio.files import making_many, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_the_garbage_collector_comes_back() -> None:
    with making_many():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), making_many():
        raise KeyError
    assert gc.isenabled()
