"""Oxford-IIIT Pet: trimaps, read as pet and background or by breed."""

from functools import partial

import numpy as np
import pytest

from segfolio.data.datasets.oxford_pet import BREEDS, OxfordPet
from segfolio.data.formats.images import read_id_map, write_id_map
from segfolio.errors import SegfolioError
from segfolio.inspection import inspect_dataset
from tests.fake import oxford_pet
from tests.fake.voc import to_rgb


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    oxford_pet.write(folder := tmp_path_factory.mktemp("pets"))
    return folder


@pytest.fixture
def own(tmp_path):
    oxford_pet.write(tmp_path)
    return tmp_path


def trimap(root, name):
    return read_id_map(root / "annotations" / "trimaps" / f"{name}.png")


def test_splits_are_the_lists(root):
    names = [pair.image_id for pair in OxfordPet(root, "trainval").pairs]
    assert names == [
        "Abyssinian_1",
        "yorkshire_terrier_2",
        "american_pit_bull_terrier_3",
        "staffordshire_bull_terrier_4",
    ]
    assert len(OxfordPet(root, "test")) == 2
    assert OxfordPet.info.splits == {"trainval": 3680, "test": 3669}


@pytest.mark.parametrize(
    ("arguments", "names", "expected"),  # of 1 pet, 2 background, 3 border
    [
        ({}, ("pet", "background"), [0, 1, 255]),
        ({"border": True}, ("pet", "background", "border"), [0, 1, 2]),
        ({"breeds": True}, (*BREEDS, "background"), [36, 37, 255]),
        ({"breeds": True, "border": True}, (*BREEDS, "background", "border"), [36, 37, 38]),
    ],
)
def test_a_trimap_becomes_classes(root, arguments, names, expected):
    dataset = OxfordPet(root, "trainval", **arguments)
    sample = dataset[1]  # a yorkshire terrier, the last of 37
    assert sample.image_id == "yorkshire_terrier_2"
    assert dataset.labels.names == names
    assert dataset.labels.background == "background"
    assert np.array_equal(sample.target.semantic, np.array([-1, *expected])[trimap(root, sample.image_id)])
    pet = sample.target.semantic == expected[0]
    assert sample.image[0][pet].float().mean() > 200  # the fake's pets are bright


def test_breeds_have_the_order_of_the_lists(root):
    assert (len(BREEDS), BREEDS[0], BREEDS[11], BREEDS[33]) == (37, "Abyssinian", "Egyptian_Mau", "Sphynx")
    assert list(BREEDS) == sorted(BREEDS, key=str.lower)
    for line in (root / "annotations" / "trainval.txt").read_text().splitlines():
        name, number, *_ = line.split()
        assert name.startswith(BREEDS[int(number) - 1])


def test_notes_in_a_list_are_passed_over(own):
    listing = own / "annotations" / "test.txt"
    listing.write_text("#Image CLASS-ID SPECIES BREED ID\n\n" + listing.read_text())
    assert len(OxfordPet(own, "test")) == 2


@pytest.mark.parametrize("breeds", [False, True])
def test_wrong_trimaps_are_named_by_inspection(own, breeds):
    folder = own / "annotations" / "trimaps"
    to_rgb(folder / "Abyssinian_1.png")
    write_id_map(folder / "yorkshire_terrier_2.png", np.full((48, 64), 4, np.uint8))
    report = inspect_dataset({split: partial(OxfordPet, own, split, False, breeds) for split in ("trainval", "test")})
    assert [problem.image_id for problem in report.fatal] == ["Abyssinian_1", "yorkshire_terrier_2"]
    assert "converted to colours" in report.fatal[0].where or "without ids" in report.fatal[0].what
    assert "label id 4 is not in the label space" in report.fatal[1].where


def test_inspection_finds_nothing_fatal(root):
    report = inspect_dataset({split: partial(OxfordPet, root, split) for split in ("trainval", "test")})
    assert report.fatal == []
    assert 0 < report.splits["trainval"].void_share < 0.1


def missing(root):
    (root / "annotations/trimaps/Abyssinian_1.png").unlink()
    return r"trainval\.txt: 1 mask missing: \S*trimaps/Abyssinian_1\.png"


def empty(root):
    (root / "annotations/trainval.txt").write_text("# nothing\n")
    return r"trainval\.txt is empty, expected the name of an image first on each line"


def no_breed(root):
    (root / "annotations/trainval.txt").write_text("Abyssinian_1 1 1 1\nunicorn_1 38 3 1\n")
    return r"trainval\.txt names images of no known breed: unicorn_1; expected names like Abyssinian_100"


def no_trimaps(root):
    (root / "annotations/trimaps").rename(root / "trimaps")
    return r"lacks annotations/trimaps of Oxford-IIIT Pet: found annotations, images, trimaps, expected images/\*\.jpg"


@pytest.mark.parametrize("spoil", [missing, empty, no_breed, no_trimaps])
def test_a_spoilt_folder_says_what_is_wrong(own, spoil):
    said = spoil(own)
    with pytest.raises(SegfolioError, match=said):
        OxfordPet(own, "trainval")


def test_an_unknown_split_is_refused(root):
    with pytest.raises(SegfolioError, match="Oxford-IIIT Pet has no split 'train'; it has test, trainval"):
        OxfordPet(root, "train")
