"""LVIS v1 in its published layout: classes, what each image was searched for, and what a file of it must have."""

import json
import shutil
import warnings

import pytest

from segfolio.data.datasets import LVIS, CocoInstances
from segfolio.data.sample import Federated
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import lvis


@pytest.fixture
def root(tmp_path):
    lvis.write(folder := tmp_path / "lvis")
    return folder


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_classes_are_the_categories_by_name_with_their_frequency(root):
    labels = LVIS(root, "train").labels
    assert labels.names == labels.things == ("aerosol_can", "air_conditioner", "airplane", "applesauce")
    assert labels.ids == (1, 2, 3, 11)
    assert labels.frequencies == ("common", "frequent", "frequent", "rare")
    assert labels.background is None


def test_an_image_is_that_of_its_url_and_a_split_has_those_of_both_folders(root):
    dataset = LVIS(root, "val")
    assert [dataset.image_id(i) for i in range(3)] == [
        "train2017/000000000500",
        "val2017/000000000501",
        "val2017/000000000502",
    ]
    sample = dataset[0]
    assert (sample.target.number, sample.original_size) == (500, (48, 64))
    segments = sample.target.segments
    assert segments.labels.tolist() == [2, 3]
    assert not segments.crowd.any()
    ground, plane, sauce = (
        sample.image[:, m].float().mean() for m in (~segments.masks.any(0), *segments.masks)
    )  # as the fake draws them
    assert ground + 40 < plane < sauce - 40


def test_an_image_says_what_it_was_searched_for_in_class_indices(root):
    targets = [LVIS(root, "train")[i].target for i in range(4)]
    assert [t.federated for t in targets] == [Federated((1,), (2,))] * 3 + [Federated((2, 0))]
    assert len(targets[3].segments) == 0


@pytest.mark.parametrize("images", [".", "coco"])
@pytest.mark.parametrize("folder", [".", "annotations"])
def test_files_are_found_where_users_have_them(root, images, folder):
    (root / folder).mkdir(exist_ok=True)
    (root / images).mkdir(exist_ok=True)
    for name in ("lvis_v1_train.json", "lvis_v1_val.json"):
        (root / name).rename(root / folder / name)
    for name in ("train2017", "val2017"):
        (root / name).rename(root / images / name)
    assert LVIS(root, "val", images=images)[1].image_id == "val2017/000000000501"
    assert LVIS(root, "val", images=str(root / images))[1].image_id == "val2017/000000000501"


def test_a_file_of_lvis_is_federated_however_it_is_read(root):
    """By a user who has it in a folder of COCO's."""
    dataset = CocoInstances(root, "val", "lvis_v1_{split}.json")
    assert dataset.labels == LVIS(root, "val").labels
    assert dataset[2].target.federated == Federated((2, 0))
    with pytest.raises(SegfolioError, match=r"lvis_v1_val\.json: images were searched for some of the classes alone"):
        CocoInstances(root, "val", "lvis_v1_{split}.json", background="ground")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"][1].pop("frequency"), "category 1 has no frequency of r, c, f, as all have in LVIS"),
        (lambda c: c["categories"][1].update(frequency="often"), "category 1 has no frequency of r, c, f"),
        (lambda c: c["images"][2].pop("neg_category_ids"), "image 102 has no neg_category_ids, as all have in LVIS v1"),
        (lambda c: c["images"][0].update(not_exhaustive_category_ids=None), "image 100 has no not_exhaustive_category"),
        (
            lambda c: c["images"][0].update(neg_category_ids=[1.5]),
            r"'neg_category_ids' of images\[0\] is \[1\.5\], exp",
        ),
        (lambda c: c["images"][0].pop("coco_url"), r"'file_name' of images\[0\] is None, expected a text"),
        (lambda c: c["images"][0].update(coco_url=7), r"'coco_url' of images\[0\] is 7, expected a text"),
    ],
)
def test_a_file_that_is_none_of_lvis_says_what_it_lacks(root, change, message):
    edit(root / "lvis_v1_train.json", change)
    with pytest.raises(SegfolioError, match=rf"lvis_v1_train\.json: {message}"):
        LVIS(root, "train")


def test_a_wrong_split_or_folder_is_a_sentence(root):
    with pytest.raises(SegfolioError, match="LVIS v1 has no split 'minival'; it has train, val"):
        LVIS(root, "minival")
    shutil.rmtree(root / "train2017")
    with pytest.raises(SegfolioError, match=r"lvis_v1_train\.json names 4 images, none of which is below"):
        LVIS(root, "train")


def test_what_images_were_searched_for_is_no_cause_for_a_warning(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LVIS(root, "train").check()
    report = inspect_dataset({split: lambda split=split: LVIS(root, split) for split in ("train", "val")})
    assert report.fatal == []
    assert report.splits["train"].objects.tolist() == [0, 0, 3, 2]


def test_a_contradiction_is_a_remark_and_an_unknown_category_a_problem(root):
    edit(root / "lvis_v1_train.json", lambda c: c["images"][0].update(neg_category_ids=[3]))
    edit(root / "lvis_v1_val.json", lambda c: c["images"][0].update(not_exhaustive_category_ids=[99]))
    (remark,) = LVIS(root, "train").problems()
    assert not remark.fatal
    assert remark.what == "with objects of a category that its neg_category_ids say it lacks (they count)"
    assert remark.where == f"{root}/lvis_v1_train.json: image 100 (category 3)"
    dataset = LVIS(root, "val")
    with pytest.raises(SegfolioError, match=r"3 images: 1 image with an unknown category in neg_.*500 \(category 99\)"):
        dataset.check()
    with pytest.raises(SegfolioError, match="image 500 has the unknown category 99 in neg_category_ids or not_exhaus"):
        dataset[0]
