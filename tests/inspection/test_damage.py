"""A hundred files damaged in every way that users have met: each is named once, and nothing crashes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from segfolio.data.datasets import CocoInstances, MaskFolder
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.inspection import inspect_dataset
from tests.fake import mask_folder

Damage = Callable[[np.random.Generator, Path], object]


def _cut(rng: np.random.Generator, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.integers(1, len(data) - 4)])


def _flip(rng: np.random.Generator, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data) // 4, len(data) // 2, 8):
        data[place] ^= 0x5A
    path.write_bytes(data)


def _garble_header(rng: np.random.Generator, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:33] = rng.integers(0, 256, 25, np.uint8).tobytes()
    path.write_bytes(data)


def _encode(path: Path, suffix: str, pixels: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def _deep(rng: np.random.Generator, path: Path) -> None:
    _encode(path, ".png", rng.integers(0, 0x10000, (64, 96, 3), np.uint16))


_ANY: dict[str, Damage] = {
    "cut": _cut,
    "cut again": _cut,
    "cut once more": _cut,
    "empty": lambda rng, path: path.write_bytes(b""),
    "text": lambda rng, path: path.write_text("404: Not Found\n"),
    "zeros": lambda rng, path: path.write_bytes(bytes(5000)),
    "noise": lambda rng, path: path.write_bytes(rng.bytes(3000)),
    "one byte": lambda rng, path: path.write_bytes(b"\x89"),
    "signature": lambda rng, path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
    "16 bits": _deep,
}
IMAGES = {**_ANY, "start of a JPEG": lambda rng, path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(500) + b"\xff\xd9")}
MASKS = {
    **_ANY,
    "flipped": _flip,
    "flipped again": _flip,
    "header": _garble_header,
    "JPEG": lambda rng, path: _encode(path, ".jpg", np.zeros((64, 96), np.uint8)),
    "RGB": lambda rng, path: _encode(path, ".png", np.zeros((64, 96, 3), np.uint8)),
    "alpha": lambda rng, path: _encode(path, ".png", np.zeros((64, 96, 4), np.uint8)),
    "wrong size": lambda rng, path: write_id_map(path, np.zeros((96, 64), np.uint8)),
    "unknown id": lambda rng, path: write_id_map(path, rng.integers(0, 5, (64, 96), np.uint8)),
    "unknown id of 16 bits": lambda rng, path: write_id_map(path, np.full((64, 96), 7001, np.uint16)),
}


def test_each_damaged_file_is_named_once(tmp_path):
    rng = np.random.default_rng(0)
    damages = [("images", ".jpg", d) for d in IMAGES.values()] + [("masks", ".png", d) for d in MASKS.values()]
    damages = (4 * damages)[:110]
    mask_folder.write(tmp_path, train=len(damages) + 3, val=2)
    damaged = []
    for number, (kind, suffix, damage) in enumerate(damages):
        damaged.append(tmp_path / kind / "train" / f"{number}{suffix}")
        damage(rng, damaged[-1])
    report = inspect_dataset({name: partial(MaskFolder, tmp_path, name) for name in ("train", "val")})
    told = " ".join(f"{problem.where} " for problem in report.fatal).replace(":", " ").split()
    assert {path.name: told.count(str(path)) for path in damaged} == dict.fromkeys((p.name for p in damaged), 1)
    assert len(report.fatal) == len(damaged) == 110
    assert report.remarks == []
    assert report.splits["train"].read == 3
    assert report.splits["train"].unknown.keys() == {3, 4, 7001}


@pytest.fixture
def coco(tmp_path) -> Path:
    """An image of 8x6 pixels in each of train and val, each with one object."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        write_image(tmp_path / f"{split}/{split}.png", rng.integers(0, 256, (6, 8, 3), np.uint8))
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "height": 6, "width": 8}],
            "categories": [{"id": 1, "name": "cell"}],
            "annotations": [
                {
                    **{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 12, "bbox": [0, 0, 2, 6]},
                    "segmentation": {"size": [6, 8], "counts": [0, 12, 36]},
                }
            ],
        }
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def inspect_coco(root: Path):
    opened = {s: partial(CocoInstances, root, s, annotations="instances_{split}.json") for s in ("train", "val")}
    return inspect_dataset(opened)


def test_a_sound_coco_file_has_no_problem(coco):
    report = inspect_coco(coco)
    assert report.problems == []
    assert report.splits["train"].objects.tolist() == [1]
    assert report.splits["train"].pixels.tolist() == [12, 36]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('{"images"', '{"images', "is no JSON"),
        ("[0, 0, 2, 6]", "[NaN, 0, 2, 6]", "annotation 1"),
        ('"area": 12', '"area": NaN', None),
        ('[{"id": 1, "file_name"', '[{"id": -1, "file_name"', "-1"),
        ("[6, 8]", "[8, 6]", "annotation 1"),
        ("[0, 12, 36]", "[0, 12, 99]", "annotation 1"),
        ("[0, 12, 36]", '"!"', "annotation 1"),
        ('"category_id": 1', '"category_id": 7', "annotation 1 (7)"),
        ('"image_id": 1', '"image_id": 3', "annotation 1"),
        ('"height": 6', '"height": 9', "another size"),
    ],
)
def test_a_fault_of_a_coco_file_is_told_once(coco, old, new, says):
    path = coco / "instances_val.json"
    path.write_text(path.read_text().replace(old, new, 1))
    report = inspect_coco(coco)
    assert report.splits["train"].read == 1
    told = [p for p in report.fatal if p.kind != "split" or "opened" in p.what]
    if says is None:
        assert told == []
    else:
        assert any(str(path) in p.where and says in f"{p.kind} {p.what}: {p.where}" for p in told), told
        if old != '[{"id": 1, "file_name"':  # an image of another id is no longer the annotation's
            assert len(told) == 1
