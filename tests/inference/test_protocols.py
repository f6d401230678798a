"""Views of an image, averaged; the presets of the papers."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d, pad

from segfolio.errors import SegfolioError
from segfolio.inference.dense_crf import CRF_PRESETS, CRFParameters, dense_crf
from segfolio.inference.protocols import (
    PRESETS,
    AlignedResize,
    DenseCRF,
    DenseProtocol,
    MirroredExponentials,
    MultiScale,
    Slide,
    Whole,
    find,
)
from segfolio.inference.tiles import Store, argmax, collect
from tests.inference.networks import CLASSES, convolution, image, network, per_pixel

SIZE = (50, 70)


def read(protocol: DenseProtocol, picture: Tensor | None = None, size: tuple[int, int] = SIZE, **arguments) -> Tensor:
    net = network(**{"logits_of": convolution(), **arguments})
    return collect(protocol.tiles(net, image() if picture is None else picture, size), size)


def seen_by(protocol: DenseProtocol, picture: Tensor) -> list[tuple[int, int]]:
    """Sizes of the batches that the network gets."""
    sizes = []

    def remember(images: Tensor) -> Tensor:
        sizes.append((images.shape[-2], images.shape[-1]))
        return per_pixel(images)

    size = (picture.shape[-2], picture.shape[-1])
    argmax(protocol.tiles(network(remember), picture, size), size)
    return sizes


def at(logits_of, scale_size: tuple[int, int], flip: bool) -> Tensor:
    """Logits at the original size of one view, by hand."""
    picture = interpolate(image()[None].float(), scale_size, mode="bilinear", antialias=True)
    logits = logits_of(picture.flip(-1) if flip else picture)
    logits = interpolate(logits, SIZE, mode="bilinear")
    return (logits.flip(-1) if flip else logits)[0].detach()


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("store", ["device", "disk"])
def test_views_are_averaged_at_the_original_size(average, store: Store) -> None:
    """Scales 0.5 and 1.25 of 50 x 70: 25 x 35, and 63 x 88 (62.5 and 87.5 rounded up)."""
    views = [at(convolution(), size, flip) for size in ((25, 35), (63, 88)) for flip in (False, True)]
    if average == "probabilities":
        views = [view.softmax(0) for view in views]
    found = read(MultiScale((0.5, 1.25), average=average, store=store))
    torch.testing.assert_close(found, torch.stack(views).mean(0), rtol=1e-4, atol=1e-5)


def test_one_view_is_the_whole_image() -> None:
    assert torch.equal(read(MultiScale((1.0,), flip=False, average="logits")), read(Whole()))


def test_the_flip_of_a_symmetric_network_is_exact() -> None:
    """Its scores of a mirrored image are mirrored scores, so that the mean of both is either."""
    net = {"logits_of": convolution(stride=1, symmetric=True)}
    for inner in (Whole(), Slide((50, 14), (50, 14))):
        alone = read(inner, **net)
        both = read(MultiScale((1.0,), flip=True, average="logits", inner=inner), **net)
        torch.testing.assert_close(both, alone, rtol=0, atol=1e-6)
    other = read(MultiScale((1.0,), flip=True, average="logits"), logits_of=convolution(stride=1))
    assert (other - read(Whole(), logits_of=convolution(stride=1))).abs().max() > 0.01


def test_a_mirrored_image_has_the_mirrored_result() -> None:
    protocol = PRESETS["ms_mmseg"]
    torch.testing.assert_close(read(protocol, image().flip(-1)), read(protocol).flip(-1), rtol=0, atol=1e-6)


def test_exponentials_of_a_window_and_its_mirror_image_are_added() -> None:
    """`MultiEvalModule` by hand: one scale of two windows, of which the right one is moved back inside the image."""
    logits_of = convolution()
    picture = pad(image(40, 70).float(), (0, 0, 0, 10))  # black below
    total, count = torch.zeros(CLASSES, 50, 70), torch.zeros(50, 70)
    for left in (0, 20):
        window = picture[None, ..., left : left + 50]
        logits = [interpolate(logits_of(x), (50, 50), mode="bilinear")[0].detach() for x in (window, window.flip(-1))]
        total[..., left : left + 50] += (logits[0] + logits[1].flip(-1)).exp()
        count[:, left : left + 50] += 1
    protocol = MirroredExponentials(MultiScale((1.0,), flip=False, average="logits", inner=Slide(50, 33)))
    torch.testing.assert_close(read(protocol, image(40, 70), (40, 70)), (total / count)[:, :40])
    with pytest.raises(SegfolioError, match="adds logits, but this network gives probabilities"):
        read(protocol, logits=False)


def test_probabilities_of_a_network_are_not_softened_again() -> None:
    """Mask classification sums class x mask probabilities."""

    def positive(images: Tensor) -> Tensor:
        return convolution()(images).sigmoid()

    found = read(MultiScale((1.0,), flip=False), logits_of=positive, logits=False)
    assert torch.equal(found, read(Whole(), logits_of=positive, logits=False))


def test_sliding_views_stream_into_one_sum() -> None:
    """PSPNet: probabilities are averaged in windows, resized, and averaged over views."""
    windows = Slide(20, 13, average="probabilities")
    small = interpolate(image()[None].float(), (25, 35), mode="bilinear", antialias=True)[0]
    expected = torch.stack([read(windows), interpolate(read(windows, small, (25, 35))[None], SIZE, mode="bilinear")[0]])
    found = read(MultiScale((1.0, 0.5), flip=False, inner=windows))
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(0), torch.ones(SIZE))


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("whole", [(100, 250)]),
        ("aligned", [(512, 1280)]),
        ("ms_mmseg", [(50, 125), (75, 188), (100, 250), (125, 313), (150, 375), (175, 438)]),
        ("ms_dla", [(50, 125), (75, 188), (100, 250), (125, 313), (150, 375)]),
        # 300 x 750, 375 x 938, 400 x 1000 thrice, rounded up to multiples of 8
        ("ms_csail", [(304, 752), (376, 944), (400, 1000), (400, 1000), (400, 1000)]),
        ("ms_csail_32", [(320, 768), (384, 960), (416, 1024), (416, 1024), (416, 1024)]),
    ],
)
def test_presets_see_the_sizes_of_their_papers(preset: str, sizes: list[tuple[int, int]]) -> None:
    seen = seen_by(PRESETS[preset], image(100, 250))
    mirrored = 2 if preset == "ms_mmseg" else 1
    assert seen == [size for size in sizes for _ in range(mirrored)]


def test_presets_of_detectron2_and_pspnet() -> None:
    d2, d2_640, pspnet = (PRESETS[name] for name in ("ms_d2", "ms_d2_640", "ms_pspnet"))
    assert [min(size) for size in d2.sizes((500, 750))] == [256, 384, 512, 640, 768, 896]
    assert [min(size) for size in d2_640.sizes((500, 750))] == [320, 480, 640, 800, 960, 1120]
    assert (d2.flip, d2.average, pspnet.flip, pspnet.average) == (True, "logits", True, "probabilities")
    assert (pspnet.inner.window, pspnet.inner.stride) == ((473, 473), (316, 316))
    assert (PRESETS["slide"].window, PRESETS["slide"].stride) == ((512, 512), (341, 341))


def test_the_inner_protocol_sees_the_aligned_image() -> None:
    assert seen_by(AlignedResize(64, 32, max_size=100), image()) == [(64, 96)]
    assert seen_by(AlignedResize(70, 32, inner=Slide(64, 64)), image()) == [(64, 64)] * 4


def test_the_crf_refines_the_probabilities_of_the_inner_protocol() -> None:
    parameters = CRFParameters(4, 20, 10, 3, 3)
    inner = MultiScale((1.0, 0.5))
    expected = dense_crf(read(inner), image(), parameters, 1)
    assert torch.equal(read(DenseCRF(parameters, inner, iterations=1)), expected)
    soft = read(Whole()).softmax(0)
    assert torch.equal(read(DenseCRF("v2_vgg16", iterations=1)), dense_crf(soft, image(), CRF_PRESETS["v2_vgg16"], 1))
    symmetric = dense_crf(soft, image(), CRF_PRESETS["v2_vgg16"], 1, "symmetric")
    assert torch.equal(read(DenseCRF("v2_vgg16", iterations=1, normalization="symmetric")), symmetric)


def test_the_crf_sees_a_resized_image_at_the_original_size() -> None:
    """As its inner protocol's scores are at that size."""
    found = read(DenseCRF("v1", iterations=1), interpolate(image()[None], (25, 35), mode="nearest")[0])
    assert found.shape == (CLASSES, *SIZE)
    torch.testing.assert_close(found.sum(0), torch.ones(SIZE))


def test_every_protocol_of_the_recipes_is_a_preset_and_says_what_it_does() -> None:
    ids = {"whole", "slide", "ms_mmseg", "ms_pspnet", "ms_d2", "ms_dla", "ms_csail", "aligned"}
    assert ids | {f"crf_{name}" for name in CRF_PRESETS} <= PRESETS.keys()
    assert len({protocol.words for protocol in PRESETS.values()}) == len(PRESETS)
    assert PRESETS["ms_csail"].words == (
        "short sides 300, 375, 450, 525, 600, long side at most 1000, sides multiples of 8, probabilities averaged, "
        "of each: whole image, one view"
    )


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(SegfolioError, match=r"no test protocol 'ms_mmsg'; the presets are whole, slide.*'ms_mmseg'\?$"):
        find("ms_mmsg")
    assert find("whole") is PRESETS["whole"]
    with pytest.raises(SegfolioError, match=r"parameters is 'v3'; the presets are v1, "):
        DenseCRF("v3")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scales": [1.0], "short_sides": [300]},
        {"scales": [0.0]},
        {"scales": [1.0], "max_size": 9},
        {"short_sides": [0]},
    ],
)
def test_views_without_a_size_are_refused(arguments) -> None:
    with pytest.raises(SegfolioError, match="give"):
        MultiScale(**arguments)


@pytest.mark.parametrize(
    "protocol", [MultiScale((0.01, 1.0)), AlignedResize(2, 1), Slide((6, 40)), DenseCRF("v1", MultiScale((0.1,)))]
)
def test_a_view_of_which_the_network_leaves_nothing_is_one_sentence(protocol: DenseProtocol) -> None:
    def pooled(images: Tensor) -> Tensor:
        return max_pool2d(images, 8)

    with pytest.raises(SegfolioError, match=r"cannot read (1x1|2x3|6x40|5x7) pixels.*too small.*larger scales, sides"):
        read(protocol, logits_of=pooled)


def test_other_errors_of_a_network_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        read(Whole(), logits_of=lambda images: conv2d(images, torch.zeros(1, 4, 1, 1)))


@pytest.mark.parametrize("arguments", [{"iterations": -1}, {"normalization": "symetric"}])
def test_a_crf_that_cannot_run_is_refused_before_it_does(arguments) -> None:
    with pytest.raises(SegfolioError, match=r"dense CRF: expected .*, found (-1|'symetric')"):
        DenseCRF("v1", **arguments)
