"""The 2018 Data Science Bowl: one file per nucleus."""

import numpy as np
import pytest

from segfolio.data.datasets import DSB2018, CocoInstances
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.errors import SegfolioError
from tests.fake import dsb2018


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    dsb2018.write(folder := tmp_path_factory.mktemp("dsb"))
    return folder


@pytest.fixture
def own(tmp_path):
    dsb2018.write(tmp_path, images=5)
    return tmp_path


def test_every_fifth_image_is_for_validation(root):
    assert DSB2018(root, "val").ids == ["a04", "a09"]
    assert DSB2018(root, "train").ids == ["a00", "a01", "a02", "a03", "a05", "a06", "a07", "a08"]
    assert DSB2018(root, "val", val_every=3).ids == ["a02", "a05", "a08"]


def test_a_list_goes_before_the_rule(own):
    (own / "splits").mkdir()
    (own / "splits" / "val.txt").write_text("a00\na02\n")
    (own / "splits" / "fold1.txt").write_text("a03\n\n")
    assert DSB2018(own, "val").ids == ["a00", "a02"]
    assert DSB2018(own, "fold1").ids == ["a03"]
    (own / "splits" / "val.txt").write_text("a00\nb\n")
    with pytest.raises(SegfolioError, match=r"val\.txt names images that \S*stage1_train lacks: b"):
        DSB2018(own, "val")


def test_nuclei_are_bright_and_alpha_is_gone(root):
    sample = DSB2018(root, "val")[0]
    assert sample.image.shape == (3, 64, 80)
    segments = sample.target.segments
    assert segments.masks.sum((1, 2)).tolist() == [64] * 5
    assert segments.labels.tolist() == [0] * 5
    nuclei = sample.target.semantic == 0
    assert np.array_equal(nuclei, segments.masks.any(0))
    assert set(sample.target.semantic.unique().tolist()) == {0, 1}
    assert sample.image[0][nuclei].min() > sample.image[0][~nuclei].max()


def masks_of(root, name="a01"):
    return sorted((root / "stage1_train" / name / "masks").iterdir())


def overlap(root):
    first, second = masks_of(root)[:2]
    write_id_map(second, np.maximum(read_id_map(first), read_id_map(second)))
    return rf"{second.name} and {first.name} lie one within the other; a nucleus has one mask"


def empty(root):
    write_id_map(path := masks_of(root)[2], np.zeros((64, 80), np.uint8))
    return rf"{path.name} is empty, expected the pixels of a nucleus"


def other_size(root):
    write_id_map(path := masks_of(root)[2], np.full((64, 79), 255, np.uint8))
    return rf"{path.name} is 79x64 pixels but its image is 80x64"


def none(root):
    for path in masks_of(root):
        path.unlink()
    return "a01/masks holds no PNG, expected one for each nucleus"


@pytest.mark.parametrize("damage", [overlap, empty, other_size, none])
def test_a_wrong_mask_is_named_at_reading_and_before_training(own, damage):
    said = damage(own)
    dataset = DSB2018(own, "train")
    with pytest.raises(SegfolioError, match=said):
        dataset[1]
    assert len(dataset[0].target.segments) == 5
    (fatal,) = [problem for problem in dataset.problems() if problem.fatal]
    assert fatal.image_id == "a01"
    with pytest.raises(SegfolioError, match=rf"4 images: 1 mask that is not one nucleus of its image: .*{said}"):
        dataset.check()


def test_other_folders_and_arguments_are_refused(own, tmp_path):
    with pytest.raises(SegfolioError, match="has no split 'test'; it has train, val"):
        DSB2018(own, "test")
    with pytest.raises(SegfolioError, match="lacks stage1_train of 2018 Data Science Bowl"):
        DSB2018(tmp_path / "stage1_train", "val")
    with pytest.raises(SegfolioError, match="holds 5 images, of which none is for val"):
        DSB2018(own, "val", val_every=6)
    with pytest.raises(SegfolioError, match="val_every is 1, expected 2 or more"):
        DSB2018(own, "val", val_every=1)


def test_the_real_files_are_those_of_the_coco_sample(real_data):
    """Five images are there in both layouts: the same pixels, the same nuclei."""
    folder = real_data / "dsb2018"
    coco = {}
    for split in ("train", "val"):
        dataset = CocoInstances(folder, split, "instances_{split}.json")
        coco |= {image.stem: (dataset, i) for i, image in enumerate(dataset.file.images)}
    seen = 0
    for split in ("train", "val"):
        for sample in DSB2018(folder, split):
            if (found := coco.get(sample.image_id[:12])) is None:
                continue
            dataset, index = found
            other = dataset[index]
            assert np.array_equal(sample.image, other.image)
            ours, theirs = sample.target.segments.masks.numpy(), other.target.segments.masks.numpy()
            assert sorted(m.tobytes() for m in ours) == sorted(m.tobytes() for m in theirs)
            seen += 1
    assert seen == 5
