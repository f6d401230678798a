"""Files that users have and that were once lost or misread, each kind with its neighbours."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.datasets import ImageFolder, MaskFolder
from segfolio.data.formats import tiff
from segfolio.data.formats.image_header import read_header
from segfolio.data.formats.images import is_cut_short, read_id_map, read_image, write_id_map
from segfolio.data.image_space import GREY, RGB, ImageSpace
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError
from tests.fake import mask_folder
from tests.fake.tiff import encode

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (48, 64, 3), np.uint8)


def problems(path: Path, space: ImageSpace = RGB) -> list[tuple[str, bool]]:
    return [(p.what, p.fatal) for p in header_problems([FilePair("a", path, None)], space)]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Orientation tags


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_tag_that_turns_is_not_applied_in_any_format_and_is_told(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    Image.fromarray(PIXELS).save(path := tmp_path / f"a.{kind.lower()}", kind, exif=exif, **how)
    read = read_image(path)
    if kind == "JPEG":
        plain = io.BytesIO()
        Image.fromarray(PIXELS).save(plain, kind, **how)
        assert np.array_equal(read, read_image(write(tmp_path / "b.jpg", plain.getvalue())))
    else:
        assert np.array_equal(read, PIXELS)
    assert read_header(path).orientation == orientation
    ((what, fatal),) = problems(path)
    assert what.startswith("with an orientation tag, which is not applied")
    assert not fatal


def test_a_palette_tiff_is_not_turned_either(tmp_path):
    """It is OpenCV that decodes it, which applies the tag."""
    image = Image.fromarray(PIXELS[..., 0]).convert("P")
    image.save(tmp_path / "plain.tif")
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "tagged.tif", exif=exif)
    assert np.array_equal(read_image(tmp_path / "tagged.tif"), read_image(tmp_path / "plain.tif"))


def test_fit_and_predict_name_the_files_with_a_tag(tmp_path):
    mask_folder.write(tmp_path, train=2)
    path = tmp_path / "images/train/1.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    message = rf"1 image with an orientation tag, which is not applied .*; the first is {path}"
    with pytest.warns(UserWarning, match=message):
        MaskFolder(tmp_path, "train").check()
    with pytest.warns(UserWarning, match=message):
        ImageFolder(tmp_path / "images", "predict", LabelSpace(("a",))).check()


# Gamma


@pytest.mark.parametrize("chunk", [b"", b"sRGB\0", b"gAMA" + struct.pack(">I", 45455), b"gAMA" + struct.pack(">I", 1)])
def test_colour_becomes_the_same_grey_whatever_gamma_a_png_names(tmp_path, chunk):
    Image.fromarray(np.full((3, 4, 3), (95, 130, 194), np.uint8)).save(stream := io.BytesIO(), "PNG")
    data = stream.getvalue()
    if chunk:
        packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        data = data[:33] + packed + data[33:]
    path = write(tmp_path / "a.png", data)
    assert (read_image(path, GREY) == 127).all()  # 126.83
    assert (read_image(path) == (95, 130, 194)).all()


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp"])
def test_colour_becomes_the_same_grey_in_every_format(tmp_path, suffix):
    image = Image.fromarray(np.full((16, 16, 3), (95, 130, 194), np.uint8))
    image.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    assert (read_image(tmp_path / f"a{suffix}", GREY) == 127).all()


# Alpha


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_colours_are_those_stored_beside_any_alpha(tmp_path, suffix):
    image = Image.fromarray(np.full((16, 16, 4), (200, 100, 50, 128), np.uint8))
    image.save(tmp_path / f"a{suffix}", **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    assert (read_image(tmp_path / f"a{suffix}") == (200, 100, 50)).all()
    assert (read_image(tmp_path / f"a{suffix}", ImageSpace(4)) == (200, 100, 50, 128)).all()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_grey_is_as_stored_beside_any_alpha(tmp_path, suffix):
    Image.fromarray(np.full((5, 6, 2), (200, 128), np.uint8)).save(tmp_path / f"a{suffix}")
    assert (read_image(tmp_path / f"a{suffix}", GREY) == 200).all()
    assert (read_image(tmp_path / f"a{suffix}", ImageSpace(2)) == (200, 128)).all()
    assert problems(tmp_path / f"a{suffix}", GREY) == [("with an alpha channel, which is dropped", False)]


def test_alpha_of_16_bits_in_planes_does_not_touch_colours(tmp_path):
    pixels = np.full((9, 8, 4), (60_000, 30_000, 15_000, 1), np.uint16)
    path = write(tmp_path / "a.tif", encode(pixels, planar=True, photometric=2, tags={338: (2,)}))
    assert (read_image(path, ImageSpace(3, "uint16")) == (60_000, 30_000, 15_000)).all()


# Headers and reader


def bands(channels: int, dtype: str = "u1") -> np.ndarray:
    return (100 * RNG.random((64, 48, channels))).astype(dtype)


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def npy(pixels: np.ndarray) -> bytes:
    np.save(stream := io.BytesIO(), pixels)
    return stream.getvalue()


UINT16, FLOAT = ImageSpace(3, "uint16"), ImageSpace(3, "float32")
SPACES = [RGB, GREY, ImageSpace(4), ImageSpace(5), UINT16, ImageSpace(1, "uint16"), FLOAT, ImageSpace(2, "float32")]
FILES = {
    "photo.bmp": encoded(".bmp", bands(3)),
    "720 wide.bmp": encoded(".bmp", np.zeros((64, 720, 3), np.uint8)),
    "deflate.tif": encode(bands(3), big=True, deflate=True, photometric=2),
    "differences.tif": encode(bands(3, "u2"), deflate=True, predictor=True, tile=16),
    "float64.tif": encode(bands(3, "f8")),
    "float32.tif": encode(bands(1, "f4")),
    "five.tif": encode(bands(5)),
    "five planes.tif": encode(bands(5), planar=True),
    "tiles.tif": encode(bands(3), tile=16),
    "int8.tif": encode(bands(3, "i1")),
    "uint32.tif": encode(bands(1, "u4")),
    "swapped.tif": encode(bands(4, "u2"), order=">"),
    "deep.png": encoded(".png", bands(3, "u2")),
    "deep grey.png": encoded(".png", bands(1, "u2")),
    "alpha.png": encoded(".png", bands(4)),
    "grey.jpg": encoded(".jpg", bands(1)),
    "photo.jpg": encoded(".jpg", bands(3)),
    "photo.webp": encoded(".webp", bands(3)),
    "grey.npy": npy(bands(1)[..., 0]),
    "five.npy": npy(bands(5)),
    "float16.npy": npy(bands(2, "f2")),
    "int64.npy": npy(bands(3, "i8")),
    "swapped.npy": npy(bands(3, ">u2")),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.words)
def test_headers_and_reader_say_the_same_of_an_image(tmp_path, name, space):
    """Either both take it, or both refuse it for the same reason."""
    path = write(tmp_path / name, FILES[name])
    fatal = [what for what, is_fatal in problems(path, space) if is_fatal]
    if fatal:
        with pytest.raises(SegfolioError, match=re.escape(f"{path} is {fatal[0]}")):
            read_image(path, space)
    else:
        pixels = read_image(path, space)
        assert pixels.shape == (*read_header(path).size, space.channels)
        assert pixels.dtype == space.dtype


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("720 wide.bmp", None),
        ("deflate.tif", None),
        ("tiles.tif", None),
        (
            "float64.tif",
            "of float64 values, expected uint8 (say dtype: float32 of the dataset, or scale and convert them)",
        ),
        ("int8.tif", "of int8 values, expected uint8 (scale and convert them)"),
        ("five.tif", "of 5 channels, expected 3 (say channels: 5)"),
        ("deep.png", "of uint16 values, expected uint8 (say dtype: uint16 of the dataset, or scale and convert them)"),
    ],
)
def test_the_reason_is_the_true_one(tmp_path, name, reason):
    path = write(tmp_path / name, FILES[name])
    assert [what for what, is_fatal in problems(path) if is_fatal] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "name", ["five.tif", "float64.tif", "five.npy", "tiles.tif", "photo.jpg", "deep.png", "photo.bmp"]
)
def test_a_file_that_is_cut_short_is_found_by_its_header(tmp_path, name):
    path = write(tmp_path / name, FILES[name][: len(FILES[name]) // 2])
    assert problems(path) == [("empty, cut short or of no known format (copy again)", True)]
    with pytest.raises(SegfolioError, match=f"{name} (cannot be decoded|is cut short)"):
        read_image(path)


@pytest.mark.parametrize("where", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("tile", [None, 16])
def test_a_compressed_tiff_that_is_damaged_is_not_read(tmp_path, tile, where):
    """The header is whole, and a checksum is not."""
    noise = RNG.integers(0, 256, (64, 48, 3), np.uint8)
    data = bytearray(encode(noise, deflate=True, photometric=2, tile=tile))
    place = int(where * (data.rfind(b"x\x9c") + 1 if tile else len(data) * 0.9)) + 20
    data[place : place + 8] = bytes(8)
    with pytest.raises(SegfolioError, match=r"a\.tif cannot be decoded: damaged"):
        read_image(write(tmp_path / "a.tif", bytes(data)))


@pytest.mark.parametrize("where", [0.02, 0.5, 0.96])
@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
def test_a_strip_that_comes_out_too_short_is_not_read(tmp_path, compression, where):
    """Without a checksum. OpenCV would go on with what it had before."""
    drawn = np.repeat(np.arange(120, dtype=np.uint8), 600).reshape(120, 200, 3)
    Image.fromarray(drawn).save(stream := io.BytesIO(), "TIFF", compression=compression)
    assert np.array_equal(read_image(write(tmp_path / "whole.tif", stream.getvalue())), drawn)
    data = bytearray(stream.getvalue())
    content = next(tiff.pages(io.BytesIO(data))).chunks
    place = content[0][0] + int(where * sum(length for _, length in content))
    data[place : place + 20] = b"\x80" * 20  # of PackBits: nothing
    with pytest.raises(SegfolioError, match=r"a\.tif cannot be decoded: damaged"):
        read_image(write(tmp_path / "a.tif", bytes(data)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
@pytest.mark.parametrize("most", [5000, 100])
def test_a_tiff_is_as_large_as_other_images_may_be(tmp_path, monkeypatch, compression, most):
    """Strips of 4800 bytes: one by one, or each larger than what Pillow takes for an attack."""
    monkeypatch.setattr(tiff, "_MOST_BYTES", most)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    image = Image.fromarray(np.repeat(PIXELS, 4, 1)[..., 0])
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={278: 16})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(tmp_path / "a.tif", GREY)[..., 0], np.asarray(image))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", [5, 32773])
def test_strips_without_a_checksum_are_read_as_before(tmp_path, compression, dtype):
    """LZW is written with differences; there are more strips than one."""
    values = RNG.integers(0, 50, (300, 400, 3)).astype(dtype)
    cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    data = (tmp_path / "a.tif").read_bytes()
    assert len(next(tiff.pages(io.BytesIO(data))).chunks) > 1
    assert np.array_equal(read_image(tmp_path / "a.tif", ImageSpace(3, dtype)), values)


# What follows the end


@pytest.mark.parametrize("movie", [b"\0\0\0\x18ftypmp42 \xff\xda movie", b"\xff\xd8\xff\xe0 \xff\xda", b"\xff" * 9])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_a_movie_behind_it_is_whole(tmp_path, movie, progressive):
    Image.fromarray(PIXELS).save(stream := io.BytesIO(), "JPEG", progressive=progressive)
    path = write(tmp_path / "a.jpg", stream.getvalue() + movie)
    assert np.array_equal(read_image(path), read_image(write(tmp_path / "b.jpg", stream.getvalue())))
    assert problems(path) == []
    assert is_cut_short(stream.getvalue()[:-200] + b"\xff\xda movie")


def test_a_png_with_a_movie_behind_it_is_whole(tmp_path):
    Image.fromarray(PIXELS).save(stream := io.BytesIO(), "PNG")
    path = write(tmp_path / "a.png", stream.getvalue() + b"\0\0\0\x18ftypmp42")
    assert np.array_equal(read_image(path), PIXELS)
    assert problems(path) == []


# Large files


def test_a_palette_id_map_may_be_as_large_as_a_grey_one(tmp_path):
    """14000 x 14000 pixels, which Pillow takes for an attack."""
    ids = np.zeros((14_000, 14_000), np.uint8)
    ids[::1000, ::700] = 7
    write_id_map(grey := tmp_path / "grey.png", ids)
    data = grey.read_bytes()
    header, colours = data[12:25] + b"\3" + data[26:29], b"PLTE" + bytes(3 * 8)
    chunks = struct.pack(">I", 24) + colours + struct.pack(">I", zlib.crc32(colours))
    palette = write(tmp_path / "a.png", data[:12] + header + struct.pack(">I", zlib.crc32(header)) + chunks + data[33:])
    assert read_header(palette).holds_ids
    assert np.array_equal(read_id_map(palette), ids)
    assert not header_problems([FilePair("a", grey, palette)], GREY)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "BMP"])
def test_the_size_of_a_large_image_is_known_by_its_header(tmp_path, kind):
    Image.fromarray(np.zeros((14_000, 14_000), np.uint8)).save(tmp_path / "a", kind)
    assert read_header(tmp_path / "a").size == (14_000, 14_000)


# Hidden folders


def test_hidden_folders_are_not_walked(tmp_path):
    mask_folder.write(tmp_path, train=2)
    for part in ("images", "masks"):
        for below in (tmp_path / part, tmp_path / part / "train"):
            (below / "@eaDir").mkdir()  # of a Synology
            (below / "@eaDir" / f"thumbnail{SUFFIX}").write_bytes(b"")
            (below / ".ipynb_checkpoints").mkdir()
            for file in (tmp_path / part / "train").glob("*.*g"):
                (below / ".ipynb_checkpoints" / f"copy{file.suffix}").write_bytes(file.read_bytes())
    assert [pair.image_id for pair in MaskFolder(tmp_path, "train").pairs] == ["0", "1"]
    labels = LabelSpace(("a",))
    assert not [p for p in ImageFolder(tmp_path / "images", "predict", labels).pairs if "ipynb" in p.image_id]
    with pytest.raises(SegfolioError, match=r"has no split '\.ipynb_checkpoints'"):
        MaskFolder(tmp_path, ".ipynb_checkpoints")


# Several images in one file


def test_further_pages_and_frames_are_told(tmp_path):
    page = np.dstack([PIXELS])
    paths = [
        write(tmp_path / "a.tif", encode(page, page, page)),
        tmp_path / "a.webp",
        tmp_path / "a.png",
    ]
    images = [Image.fromarray(page // n) for n in (1, 2, 3)]
    images[0].save(paths[1], save_all=True, append_images=images[1:], lossless=True)
    images[0].save(paths[2], save_all=True, append_images=images[1:])
    for path in paths:
        assert problems(path) == [("with further images in the same file, which are not read", False)]
        assert np.array_equal(read_image(path), PIXELS)


def test_pyramids_and_previews_are_no_further_images(tmp_path):
    data = encode(PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert problems(write(tmp_path / "a.tif", data)) == []
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(PIXELS)])
    assert problems(tmp_path / "a.jpg") == []
