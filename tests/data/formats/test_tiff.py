import io
import itertools

import numpy as np
import pytest

from segfolio.data.formats import tiff
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import ImageSpace
from segfolio.errors import SegfolioError
from tests.fake.tiff import encode

RNG = np.random.default_rng(0)


def values(channels, dtype, size=(37, 61)):
    return (200 * RNG.random((*size, channels))).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "f2", "i1", "u4"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_any_channels_and_types_come_back_as_written(channels, dtype):
    pixels = values(channels, dtype)
    for planar, tile, big, order in itertools.product((False, True), (None, 16, 32), (False, True), "<>"):
        data = encode(pixels, planar=planar, tile=tile, big=big, order=order)
        page = next(tiff.pages(io.BytesIO(data)))
        assert (page.size, page.channels, page.dtype, page.is_plain) == ((37, 61), channels, pixels.dtype.name, True)
        assert np.array_equal(tiff.numbers(data, page), pixels)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_compression_and_differences_are_undone(dtype):
    pixels = values(6, dtype)
    for planar, tile, order in itertools.product((False, True), (None, 16), "<>"):
        data = encode(pixels, planar=planar, tile=tile, order=order, deflate=True, predictor=True)
        assert np.array_equal(tiff.numbers(data, next(tiff.pages(io.BytesIO(data)))), pixels)


def test_white_may_be_zero():
    pixels = values(1, "u2")
    data = encode(65535 - pixels, photometric=0)
    assert np.array_equal(tiff.numbers(data, next(tiff.pages(io.BytesIO(data)))), pixels)


def test_pages_are_counted_without_reduced_ones_and_masks():
    page = values(1, "u1")
    assert len(list(tiff.pages(io.BytesIO(encode(page, page, page))))) == 3
    for kind in (1, 4):  # of a pyramid, and a mask
        assert not list(tiff.pages(io.BytesIO(encode(page, tags={254: (kind,)}))))


@pytest.mark.parametrize("cut", [4, 9, 400, 9000])
def test_what_is_cut_short_is_one_sentence(tmp_path, cut):
    (tmp_path / "a.tif").write_bytes(encode(values(5, "u2"))[:cut])
    with pytest.raises(SegfolioError, match=r"a\.tif cannot be decoded: "):
        read_image(tmp_path / "a.tif", ImageSpace(5, "uint16"))


def test_an_unknown_compression_is_named(tmp_path):
    data = encode(values(5, "u2"), tags={259: (34887,)})  # LERC
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(SegfolioError, match=r"damaged, or compressed in an unknown way \(34887\); copy or export it"):
        read_image(tmp_path / "a.tif", ImageSpace(5, "uint16"))
