import numpy as np
import pytest

from segfolio.data.datasets import ISBI2012
from segfolio.errors import SegfolioError
from tests.fake import isbi2012


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    isbi2012.write(folder := tmp_path_factory.mktemp("isbi"), size=(32, 48))
    return folder


def ids(dataset):
    return [dataset[i].image_id for i in range(len(dataset))]


def test_the_first_24_slices_train_and_the_last_6_are_held_out(root):
    assert ids(ISBI2012(root, "train")) == [str(n) for n in range(24)]
    assert ids(ISBI2012(root, "val")) == ids(ISBI2012(root, "test")) == ["24", "25", "26", "27", "28", "29"]


def test_other_slices_can_be_held_out(root):
    assert ids(ISBI2012(root, "val", val=(2, 10))) == ["2", "10"]
    assert ids(ISBI2012(root, "train", val=(2, 10))) == [str(n) for n in range(30) if n not in (2, 10)]


def test_images_are_grey_and_255_is_a_class(root):
    sample = ISBI2012(root, "train")[0]
    assert sample.image.shape == (1, 32, 48)
    cell = sample.target.semantic == 1
    assert set(sample.target.semantic.unique().tolist()) == {0, 1}
    assert sample.image[0][cell].min() > sample.image[0][~cell].max()  # the fake draws cells brighter


@pytest.mark.parametrize("val", [(), (30,), (-1,), tuple(range(30))])
def test_an_impossible_hold_out_is_refused(root, val):
    with pytest.raises(SegfolioError, match=r"val is \[.*expected some, not all, of the slices 0 to 29"):
        ISBI2012(root, "train", val)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(SegfolioError, match=r"lacks image, label of ISBI 2012 EM: found nothing, expected image/N"):
        ISBI2012(tmp_path, "train")
    isbi2012.write(tmp_path, size=(16, 16))
    (tmp_path / "label" / "7.png").unlink()
    with pytest.raises(SegfolioError, match=r"1 mask missing: \S*label/7\.png;"):
        ISBI2012(tmp_path, "train")
    assert len(ISBI2012(tmp_path, "val")) == 6


def test_the_real_files(real_data):
    """24 + 6 slices; membranes are a fifth of the pixels, and darker than cells in every slice."""
    share = []
    for split, count in (("train", 24), ("test", 6)):
        dataset = ISBI2012(real_data / "isbi2012", split)
        assert len(dataset) == count
        for sample in (dataset[i] for i in range(count)):
            assert sample.image.shape == (1, 512, 512)
            image, membrane = sample.image[0].numpy(), sample.target.semantic.numpy() == 0
            assert image[membrane].mean() < image[~membrane].mean() - 20  # grey levels
            share.append(membrane.mean())
    assert np.mean(share) == pytest.approx(0.22, abs=0.03)
