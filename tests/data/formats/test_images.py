import io

import cv2
import numpy as np
import pytest
from PIL import Image

from segfolio.data.formats.images import (
    is_cut_short,
    read_id_map,
    read_image,
    write_id_map,
    write_image,
    write_palette,
)
from segfolio.data.image_space import GREY as GREY_SPACE
from segfolio.data.image_space import ImageSpace
from segfolio.errors import SegfolioError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (19, 31, 3), np.uint8)
GREY = RNG.integers(0, 256, (19, 31, 1), np.uint8)


def encoded(pixels, kind, **options) -> bytes:
    Image.fromarray(pixels).save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_lossless_images_come_back_as_written(tmp_path, suffix):
    for pixels in (RGB, GREY):
        write_image(path := tmp_path / f"a{suffix}", pixels)
        assert np.array_equal(read_image(path, ImageSpace(pixels.shape[2])), pixels)


def test_pixels_are_those_that_pillow_reads(tmp_path):
    smooth = cv2.resize(RGB, (64, 48), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "a.png").write_bytes(encoded(smooth, "PNG"))
    (tmp_path / "a.jpg").write_bytes(encoded(smooth, "JPEG"))
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(Image.open(tmp_path / "a.png")))
    difference = read_image(tmp_path / "a.jpg").astype(int) - np.array(Image.open(tmp_path / "a.jpg"))
    assert np.abs(difference).max() <= 2  # decoders round differently


def test_grey_is_repeated_and_colour_becomes_luminance(tmp_path):
    write_image(tmp_path / "grey.png", GREY)
    write_image(tmp_path / "rgb.png", RGB)
    assert np.array_equal(read_image(tmp_path / "grey.png"), GREY.repeat(3, axis=2))
    luminance = RGB @ [0.299, 0.587, 0.114]
    assert np.abs(read_image(tmp_path / "rgb.png", GREY_SPACE)[..., 0] - luminance).max() < 1.5


def test_alpha_is_dropped_without_blending(tmp_path):
    rgba = np.concatenate([RGB, RNG.integers(0, 256, (19, 31, 1), np.uint8)], 2)
    (tmp_path / "a.png").write_bytes(encoded(rgba, "PNG"))
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB)


def test_orientation_tags_are_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    for kind in ("JPEG", "PNG"):
        (tmp_path / "a").write_bytes(encoded(RGB, kind, exif=exif.tobytes()))
        assert read_image(tmp_path / "a").shape == (19, 31, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_id_maps_come_back_as_written(tmp_path, dtype):
    ids = RNG.integers(0, np.iinfo(dtype).max + 1, (7, 9)).astype(dtype)
    write_id_map(path := tmp_path / "deep" / "folder" / "a.png", ids)
    read = read_id_map(path)
    assert read.dtype == dtype
    assert np.array_equal(read, ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_maps_are_read_as_indices(tmp_path, bits):
    ids = RNG.integers(0, 2**bits, (7, 9)).astype(np.uint8)
    palette = RNG.integers(0, 256, (2**bits, 3), np.uint8)
    write_palette(tmp_path / "a.png", ids, palette)
    data = (tmp_path / "a.png").read_bytes()
    assert (data[24], data[25]) == (bits, 3)  # the header: bits, palette
    assert np.array_equal(read_id_map(tmp_path / "a.png"), ids)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png").convert("RGB")), palette[ids])


def test_grey_of_one_bit_is_read_as_zero_and_one(tmp_path):
    ids = RNG.integers(0, 2, (7, 9)).astype(np.uint8)
    Image.fromarray(ids * 255).convert("1").save(tmp_path / "a.png")
    assert np.array_equal(read_id_map(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32])
def test_ids_of_another_type_are_refused_before_they_are_clipped(tmp_path, dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        write_id_map(tmp_path / "a.png", np.zeros((2, 2), dtype))


def bad(name: str) -> bytes:
    png, jpeg = encoded(RGB, "PNG"), encoded(RGB, "JPEG")
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    return {
        "empty": b"",
        "text": b"not an image at all",
        "cut.png": png[:-20],
        "cut.jpg": jpeg[:-20],
        "headless.jpg": jpeg[:40],
        "damaged.png": bytes(damaged),
        "cut.tif": encoded(RGB, "TIFF")[:-900],
        "deep.png": cv2.imencode(".png", RGB.astype(np.uint16) * 257)[1].tobytes(),
        "float.tif": cv2.imencode(".tif", RGB.astype(np.float32))[1].tobytes(),
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "is empty"),
        ("text", "damaged or no image"),
        ("cut.png", "is cut short"),
        ("cut.jpg", "is cut short"),
        ("headless.jpg", "is cut short"),
        ("damaged.png", "damaged or no image"),
        ("cut.tif", "cannot be decoded: damaged"),
        ("deep.png", "is of uint16 values, expected uint8 .say dtype: uint16 of the dataset, or scale"),
        ("float.tif", "is of float32 values, expected uint8"),
    ],
)
def test_a_bad_image_is_one_sentence_that_names_the_file(tmp_path, name, message):
    (tmp_path / name).write_bytes(bad(name))
    with pytest.raises(SegfolioError, match=f"{name} {message}" if message.startswith("is") else message) as e:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(e.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(SegfolioError, match=r"gone\.png cannot be read: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(SegfolioError, match="cannot be read: is a directory"):
        read_id_map(tmp_path)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_mask_of_colours_is_refused(tmp_path, channels):
    (tmp_path / "a.png").write_bytes(encoded(RNG.integers(0, 256, (5, 5, channels), np.uint8), "PNG"))
    with pytest.raises(SegfolioError, match=r"a\.png has been converted to colours .* expected class ids"):
        read_id_map(tmp_path / "a.png")


def test_a_jpeg_is_no_id_map(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(RGB, "JPEG"))
    with pytest.raises(SegfolioError, match=r"a\.png is no PNG"):
        read_id_map(tmp_path / "a.png")


def test_a_damaged_palette_map_is_named(tmp_path):
    write_palette(path := tmp_path / "a.png", RGB[..., 0], RNG.integers(0, 256, (256, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[-60:-20] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(SegfolioError, match=r"a\.png cannot be decoded"):
        read_id_map(path)


def test_bytes_after_the_end_are_allowed_and_a_thumbnail_is_no_end():
    png, jpeg = encoded(RGB, "PNG"), encoded(RGB, "JPEG")
    assert not is_cut_short(png + b"more")
    assert not is_cut_short(jpeg + b"more")
    with_thumbnail = jpeg[:2] + b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg + jpeg[2:]
    assert not is_cut_short(with_thumbnail)
    assert is_cut_short(with_thumbnail[:-10])
