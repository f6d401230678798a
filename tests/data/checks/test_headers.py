import warnings

import numpy as np
import pytest
from PIL import Image

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import raise_problems
from segfolio.data.datasets import CamVid
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.data.image_space import ImageSpace
from segfolio.errors import SegfolioError
from segfolio.words import counted


@pytest.fixture
def pairs(tmp_path):
    """Five flawless pairs."""
    for i in range(5):
        write_image(tmp_path / f"{i}.png", np.zeros((6, 8, 3), np.uint8))
        write_id_map(tmp_path / f"{i}_ids.png", np.zeros((6, 8), np.uint8))
    return [FilePair(str(i), tmp_path / f"{i}.png", tmp_path / f"{i}_ids.png") for i in range(5)]


def check_headers(pairs, channels):
    raise_problems(header_problems(pairs, ImageSpace(channels)), of=counted(len(pairs), "image"))


def save(path, pixels, mode=None):
    Image.fromarray(pixels).convert(mode).save(path) if mode else Image.fromarray(pixels).save(path)


def test_flawless_files_pass_in_silence(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_headers(pairs, 3)
        check_headers([pair._replace(mask=None) for pair in pairs], 3)


def spoil(path, how):
    data = path.read_bytes()
    match how:
        case "delete":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(b"hello, I am no image")
        case "cut":
            path.write_bytes(data[:-6])
        case "resize":
            save(path, np.zeros((6, 9), np.uint8))
        case "colour":
            save(path, np.zeros((6, 8, 3), np.uint8))
        case "deep grey":
            save(path, np.zeros((6, 8), np.uint16))
        case "deep rgb":
            import cv2

            cv2.imwrite(str(path), np.zeros((6, 8, 3), np.uint16))
        case "jpeg":
            Image.fromarray(np.zeros((6, 8), np.uint8)).save(path, "JPEG")


@pytest.mark.parametrize(
    ("which", "how", "message"),
    [
        ("image", "delete", r"^5 images: 1 image missing: \S*3\.png$"),
        ("mask", "delete", r"1 mask missing: \S*3_ids\.png$"),
        ("image", "empty", r"1 image empty, cut short or of no known format \(copy again\): \S*3\.png$"),
        ("image", "text", r"1 image empty, cut short .*3\.png$"),
        ("image", "cut", r"1 image empty, cut short .*3\.png$"),
        ("mask", "cut", r"1 mask empty, cut short .*3_ids\.png$"),
        ("mask", "resize", r"1 mask of another size than the image: \S*3_ids\.png \(9x6, image 8x6\)$"),
        ("image", "deep grey", r"1 image of uint16 values, expected uint8 \(say dtype: uint16 .*\): \S*3\.png$"),
        ("image", "deep rgb", r"1 image of uint16 values, .*3\.png$"),
        ("mask", "colour", r"1 mask without ids \(.*\): \S*3_ids\.png \(RGB PNG\)$"),
        ("mask", "jpeg", r"1 mask without ids .*3_ids\.png \(grey JPEG\)$"),
    ],
)
def test_each_problem_names_its_file(pairs, which, how, message):
    spoil(getattr(pairs[3], which), how)
    with pytest.raises(SegfolioError, match=message):
        check_headers(pairs, 3)


def test_all_problems_come_at_once_with_counts_and_the_first_three_files(pairs):
    for pair in pairs[:4]:
        spoil(pair.mask, "delete")
    spoil(pairs[4].mask, "resize")
    with pytest.raises(SegfolioError) as error:
        check_headers(pairs, 3)
    message = str(error.value)
    assert "4 masks missing: " in message
    assert "2_ids.png, ...; 1 mask of another size" in message
    assert "3_ids.png" not in message


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_masks_of_every_kind_that_holds_ids_pass(pairs, mode):
    save(pairs[0].mask, np.zeros((6, 8), np.uint8), mode)
    check_headers(pairs, 3)


@pytest.mark.parametrize(
    ("channels", "mode", "message"),
    [
        (3, "L", r"^5 images: 2 images in grey, which is repeated to 3 channels; the first is \S*1\.png$"),
        (3, "RGBA", r"^5 images: 2 images with an alpha channel, which is dropped; the first is \S*1\.png$"),
        (1, None, r"^5 images: 5 images in colour, which is turned to grey; the first is \S*0\.png$"),
    ],
)
def test_what_is_allowed_but_odd_is_one_warning(pairs, channels, mode, message):
    for pair in pairs[1:3] if mode else []:
        save(pair.image, np.zeros((6, 8, 3), np.uint8), mode)
    with pytest.warns(UserWarning, match=message) as caught:
        check_headers(pairs, channels)
    assert len(caught) == 1


def test_images_beyond_pillows_limit_for_decoding_pass(pairs, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # an image of 48 pixels is more than twice that
    check_headers(pairs, 3)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_camvid_passes(real_data, split):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_headers(CamVid(real_data / "CamVid", split).pairs, 3)
