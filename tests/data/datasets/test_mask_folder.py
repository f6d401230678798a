import numpy as np
import pytest

from segfolio.data.datasets import ImageFolder, MaskFolder
from segfolio.data.datasets.mask_folder import read_classes
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.image_space import GREY
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from tests.fake import mask_folder


@pytest.fixture
def root(tmp_path):
    mask_folder.write(tmp_path, train=3, val=2, test=1)
    return tmp_path


def test_folders_are_splits(root):
    assert [len(MaskFolder(root, split)) for split in ("train", "val", "test")] == [3, 2, 1]
    dataset = MaskFolder(root, "train")
    assert dataset.labels.names == ("ground", "tree", "car")
    assert dataset.labels.is_thing == (False, False, True)
    sample = dataset[0]
    assert (sample.image_id, sample.image.shape, sample.original_size) == ("0", (3, 64, 96), (64, 96))
    assert set(sample.target.semantic.unique().tolist()) == {0, 1, 2, 255}


def test_images_can_be_read_as_grey(root):
    dataset = MaskFolder(root, "train", channels=1)
    assert (dataset.image_space, dataset[0].image.shape) == (GREY, (1, 64, 96))


def test_folders_below_a_split_are_part_of_the_name(root):
    write_image(root / "images/val/street/b.png", np.zeros((16, 16, 3), np.uint8))
    write_id_map(root / "masks/val/street/b.png", np.zeros((16, 16), np.uint8))
    assert [pair.image_id for pair in MaskFolder(root, "val").pairs] == ["0", "1", "street/b"]


def test_a_list_is_a_split_in_its_own_order(root):
    (root / "splits").mkdir()
    (root / "splits/fold1.txt").write_text("val/1\n\ntrain/2\n")
    dataset = MaskFolder(root, "fold1")
    assert [dataset[i].image_id for i in range(len(dataset))] == ["val/1", "train/2"]
    (root / "splits/fold1.txt").write_text("val/1\nval/1\n")
    with pytest.raises(SegfolioError, match=r"fold1\.txt names 1 image twice: val/1;"):
        MaskFolder(root, "fold1")
    (root / "splits/fold1.txt").write_text("val/1.jpg\n")
    with pytest.raises(SegfolioError, match=r"no image for 1 of 1: val/1\.jpg; .* in lists without suffix"):
        MaskFolder(root, "fold1")


def test_an_unknown_split_says_which_there_are(root):
    (root / "splits").mkdir()
    (root / "splits/fold1.txt").touch()
    with pytest.raises(SegfolioError, match="has no split 'dev'; it has fold1, test, train, val"):
        MaskFolder(root, "dev")
    with pytest.raises(SegfolioError, match="the split 'fold1' is empty"):
        MaskFolder(root, "fold1")


def test_a_wrong_root_says_what_is_missing_and_what_was_found(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        SegfolioError,
        match=r"lacks classes\.yaml, images, masks of .* found pictures, expected .*images/<split>",
    ):
        MaskFolder(tmp_path, "train")


def test_images_without_mask_and_masks_without_image_are_counted_and_named(root):
    (root / "masks/train/0.png").unlink()
    (root / "masks/train/1.png").rename(root / "masks/train/one.png")
    with pytest.raises(SegfolioError, match="no image for 1 of 4: one; no PNG mask for 2 of 4: 0, 1; images and masks"):
        MaskFolder(root, "train")


def test_classes_with_ids_of_their_own(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("classes: {7: road, 26: car}\nvoid: [0]\nbackground: road\npalette: [[1, 2, 3], [4, 5, 6]]")
    labels = read_classes(path)
    assert (labels.names, labels.ids, labels.void_ids) == (("road", "car"), (7, 26), (0,))
    assert (labels.background, labels.palette) == ("road", ((1, 2, 3), (4, 5, 6)))


def test_more_classes_than_bytes(tmp_path):
    (tmp_path / "classes.yaml").write_text(f"names: [{', '.join(f'c{i}' for i in range(300))}]")
    assert read_classes(tmp_path / "classes.yaml").ignore_index == 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds None, expected the keys names, classes"),
        ("[road, car]", "expected the keys names, classes"),
        ("names: [road", "cannot be read as YAML: .*line 1"),
        ("nmaes: [road]", "unknown key 'nmaes', expected names, classes, void, things, background, palette"),
        ("names: road", "names is 'road', expected a list of texts"),
        ("names: []", r"names is \[\], expected a list of texts"),
        ("names: [yes, no]", r"names is \[True, False\], .* in quotes"),
        ("void: [0]", "expected either names or classes, found void"),
        ("names: [a]\nclasses: {0: a}", "expected either names or classes, found classes, names"),
        ("classes: [a, b]", r"classes is \['a', 'b'\], expected a mapping of ids to names"),
        ("classes: {a: 0}", r"classes is \{'a': 0\}, expected a mapping of ids to names"),
        ("names: [a]\nvoid: 255", "void is 255, expected a list of ids"),
        ("names: [a]\nvoid: [a]", r"void is \['a'\], expected a list of ids"),
        ("names: [a, b]\nvoid: [1]", "id 1 occurs twice"),
        ("names: [a]\nthings: a", "things is 'a', expected a list"),
        ("names: [road]\nthings: [raod]", "raod is no class of the label space"),
        ("names: [a]\nbackground: [a]", "background is .*, expected the name of a class"),
        ("names: [a]\npalette: [red]", r"palette is \['red'\], expected a list of \[red, green, blue\]"),
        ("names: [a, b]\npalette: [[1, 2, 3]]", "2 names but 1 palette"),
        ("names: [a]\npalette: [[1, 2, 256]]", "colour of a is"),
    ],
)
def test_a_mistake_in_the_classes_file_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(SegfolioError, match=message) as error:
        read_classes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_folder_has_all_images_below_it_and_no_truth(root):
    labels = MaskFolder(root, "train").labels
    dataset = ImageFolder(root / "images", "predict", labels, GREY)
    assert [pair.image_id for pair in dataset.pairs] == [
        "test/0",
        "train/0",
        "train/1",
        "train/2",
        "val/0",
        "val/1",
    ]
    sample = dataset[1]
    assert (sample.image_id, sample.image.shape, sample.target) == ("train/0", (1, 64, 96), None)
    assert dataset.labels is labels


@pytest.mark.parametrize(("folder", "found"), [("", "no image in it"), ("nowhere", "no such folder")])
def test_an_image_folder_without_images_is_refused(tmp_path, folder, found):
    with pytest.raises(SegfolioError, match=rf"{folder}: there is {found}; expected images \(\.png, "):
        ImageFolder(tmp_path / folder, "predict", LabelSpace(names=("a",)))
