"""What is remembered of files: as long as they stay as they are, and no longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segfolio.data.checks import headers
from segfolio.data.checks import remembered as memory
from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.datasets import CocoInstances, MaskFolder
from segfolio.data.formats import coco, coco_problems
from tests.fake import coco_instances, mask_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_WORTH", 0.0)
    return tmp_path / "cache" / "segfolio"


class Work:
    """Answers "1", "2", ..., each time it is done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> bytes:
        self.done += 1
        return str(self.done).encode()


def test_work_is_done_once_for_each_key() -> None:
    work = Work()
    assert [remembered(key, work) for key in ("a", "a", ["a"], "a", ["a"])] == [b"1", b"1", b"2", b"1", b"2"]


def test_quick_work_is_not_kept(cache, monkeypatch) -> None:
    monkeypatch.setattr(memory, "_WORTH", 60.0)
    work = Work()
    assert [remembered("a", work) for _ in range(2)] == [b"1", b"2"]
    assert not cache.exists()


@pytest.mark.parametrize("damage", [lambda x: b"", lambda x: x[:-1], lambda x: x[:-1] + b"7", lambda x: x + b"0"])
def test_what_is_damaged_is_made_again(cache, damage) -> None:
    work = Work()
    remembered("a", work)
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert [remembered("a", work) for _ in range(2)] == [b"2", b"2"]


def test_without_room_it_is_made_each_time(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    work = Work()
    assert [remembered("a", work) for _ in range(2)] == [b"1", b"2"]


def test_processes_that_start_at_once_leave_one_whole_answer(cache) -> None:
    code = """if True:
        import time
        from segfolio.data.checks import remembered as memory
        memory._WORTH = 0
        value = b"x" * 3_000_000
        assert memory.remembered("a", lambda: time.sleep(0.3) or value) == value
    """
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert len(list(cache.iterdir())) == 1
    assert remembered("a", lambda: pytest.fail("it was made again")) == b"x" * 3_000_000


def test_a_change_that_keeps_size_and_time_of_writing_is_seen(tmp_path) -> None:
    (path := tmp_path / "file").write_text("abc")
    before, stat = stamps([path]), path.stat()
    assert stamps([path]) == before
    path.write_text("abd")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert stamps([path]) != before


def test_files_that_come_go_or_change_places_are_seen(tmp_path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.touch()
    found = {stamps(files) for files in ([], [a], [a, b], [b, a])}
    b.touch()
    assert len({*found, stamps([a, b]), stamps([Path("a\0")])}) == 6


def test_headers_are_read_once_until_a_file_changes(tmp_path, monkeypatch) -> None:
    mask_folder.write(tmp_path)
    dataset = MaskFolder(tmp_path, "train")
    dataset.pairs[1].image.unlink()
    (before,) = dataset.problems()
    assert (before.what, before.image_id, before.fatal) == ("missing", "1", True)
    with monkeypatch.context() as patch:
        patch.setattr(headers, "read_header", lambda path: pytest.fail(f"{path} was read again"))
        assert list(dataset.problems()) == [before]
        with pytest.raises(pytest.fail.Exception):  # as grey it is another question
            MaskFolder(tmp_path, "val", channels=1).check()
    dataset.pairs[2].mask.write_bytes(b"")
    assert [p.image_id for p in dataset.problems()] == ["1", "2"]


def test_a_coco_file_is_gone_through_once_until_it_changes(tmp_path, monkeypatch) -> None:
    coco_instances.write(tmp_path)
    first = CocoInstances(tmp_path, "train")
    assert list(first.problems()) == []
    with monkeypatch.context() as patch:
        for module, name in ((coco, "outline"), (coco_problems, "_faults")):
            patch.setattr(module, name, lambda *_: pytest.fail("it was gone through again"))
        second = CocoInstances(tmp_path, "train")
        assert list(second.problems()) == []
    assert second.labels == first.labels
    assert second.file.images == first.file.images
    assert dict(second.file.annotations) == dict(first.file.annotations)
    for i in range(4):
        masks, again = (dataset[i].target.segments.masks for dataset in (first, second))
        assert np.array_equal(masks, again)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 7
    path.write_text(json.dumps(content))
    (problem,) = CocoInstances(tmp_path, "train").problems()
    assert problem.what == "of an unknown category"
