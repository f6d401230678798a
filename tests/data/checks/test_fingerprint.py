"""A fingerprint is of what a split holds, wherever it lies."""

import shutil
from pathlib import Path

import pytest

from segfolio.data.checks import fingerprint as fingerprint_module
from segfolio.data.checks import remembered
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.datasets import CamVid, Shapes
from tests.fake import camvid


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path) -> Path:
    camvid.write(tmp_path / "data")
    return tmp_path / "data"


def of(root: Path, split: str = "train") -> str:
    return fingerprint(CamVid(root, split))


def test_paths_do_not_enter(root, tmp_path):
    assert of(Path(shutil.copytree(root, tmp_path / "elsewhere"))) == of(root)


def test_one_byte_of_a_mask_changes_it(root):
    before, mask = of(root), CamVid(root, "train").pairs[0].mask
    content = bytearray(mask.read_bytes())
    content[-5] ^= 1
    mask.write_bytes(content)
    assert of(root) != before
    content[-5] ^= 1
    mask.write_bytes(content)
    assert of(root) == before


def test_the_order_of_the_split_changes_it(root):
    before, listing = of(root), root / "train.txt"
    listing.write_text("\n".join(reversed(listing.read_text().splitlines())))
    assert of(root) != before


def test_a_mask_that_changes_places_with_an_image_changes_it(root):
    before, dataset = of(root), CamVid(root, "train")
    first, second = dataset.pairs[:2]
    dataset.pairs[:2] = [first._replace(mask=second.mask), second._replace(mask=first.mask)]
    assert fingerprint(dataset) != before


def test_classes_change_it_and_their_colours_do_not(root, monkeypatch):
    before, labels = of(root), CamVid.labels
    changed = {**vars(labels), "palette": ((1, 2, 3),) * labels.num_classes}
    fields = {k: v for k, v in changed.items() if k in type(labels).__dataclass_fields__}
    monkeypatch.setattr(CamVid, "labels", type(labels)(**fields))
    assert of(root) == before
    monkeypatch.setattr(CamVid, "labels", type(labels)(**{**fields, "names": ("x", *labels.names[1:]), "things": ()}))
    assert of(root) != before


def test_files_are_read_once(root, monkeypatch):
    monkeypatch.setattr(remembered, "_WORTH", 0.0)
    before = of(root)
    monkeypatch.setattr(fingerprint_module, "_content", lambda path: pytest.fail(f"{path} was read again"))
    assert of(root) == before


def test_a_cache_that_cannot_be_written_is_done_without(root, tmp_path, monkeypatch):
    before = of(root)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert of(root) == before


@pytest.mark.parametrize("other", [{"seed": 1}, {"train": 9}, {"size": (48, 80)}, {"split": "val"}])
def test_arguments_of_drawn_data_change_it(other):
    given = {"split": "train", "size": (48, 64), "train": 8, "val": 8}
    assert fingerprint(Shapes(**given)) == fingerprint(Shapes("unused", **given))
    assert fingerprint(Shapes(**given)) != fingerprint(Shapes(**{**given, **other}))


def test_splits_of_camvid_differ(real_data):
    assert len({of(real_data / "CamVid", split) for split in ("train", "val", "test")}) == 3
