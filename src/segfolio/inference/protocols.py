"""Test protocols: how scores per pixel are read from an image, and each protocol of the papers as a preset.

A protocol is a value in YAML, of every family with scores per pixel: `test: {protocol: ms_mmseg}`, or a class with its
arguments, such as `class_path: segfolio.inference.protocols.Slide` and `init_args: {window: 768, stride: 512}`.

All results have the image's original size. Sizes and scales are those of the image that the data module hands over:
a `Resize` among `data.test_transforms` (or `eval_transforms`, where there are none) comes first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.data.sample import Size
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.inference.dense_crf import CRF_PRESETS, CRFParameters, Normalization, check_mean_field, dense_crf
from segfolio.inference.sliding import Slide
from segfolio.inference.tiles import BUDGET, DenseProtocol, Network, Scores, Store, Tiles, collect, probabilities, zeros

__all__ = [
    "PRESETS",
    "AlignedResize",
    "DenseCRF",
    "DenseProtocol",
    "MirroredExponentials",
    "MultiScale",
    "Slide",
    "Whole",
    "find",
]


class Whole(DenseProtocol):
    """The whole image in one forward pass."""

    words = "whole image, one view"

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        return next(self.read(network, image[None], [size]))

    def read(self, network: Network, images: Tensor, sizes: Sequence[Size]) -> Iterator[Tiles]:
        for scores, size in zip(network.scores(images), sizes, strict=True):
            yield scores(size)


class AlignedResize(DenseProtocol):
    """The image at another size, with sides that are multiples: SegFormer's (2105.15203, released code).

    Args:
        short_side: in pixels, before the sides are rounded up.
        multiple: that both sides are of.
        max_size: the long side is no longer than this before it is rounded up.
        inner: the protocol that sees the resized image; `Whole` if not given.

    Raises:
        SegfolioError: a length below 1.
    """

    def __init__(
        self, short_side: int, multiple: int = 32, max_size: int | None = None, inner: DenseProtocol | None = None
    ) -> None:
        _check(short_side, multiple, max_size)
        self.short_side, self.multiple, self.max_size, self.inner = short_side, multiple, max_size, inner or Whole()

    @property
    def words(self) -> str:
        return f"short side {self.short_side}{_limits(self.max_size, self.multiple)}: {self.inner.words}"

    def gives_logits(self, network: Network) -> bool:
        return self.inner.gives_logits(network)

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        own = (image.shape[-2], image.shape[-1])
        seen = resize_image(image, scaled(own, by_short_side(own, self.short_side, self.max_size), self.multiple))
        return self.inner.tiles(network, seen, size)


class MultiScale(DenseProtocol):
    """Several sizes of the image, and their mirror images, averaged at the original size.

    One sum `[C, H, W]` in float32 is held, and the scores of one view as the network gives them.

    Args:
        scales: of the image; or
        short_sides: in pixels, instead of scales; or
        long_sides: likewise.
        max_size: with `short_sides`: the long side is no longer than this.
        multiple: sides are rounded up to multiples of it.
        flip: each size is seen mirrored, too.
        average: `probabilities`, or `logits` (scores as the network gives them).
        inner: the protocol of each view; `Whole` if not given.
        store: where the sum lies.

    Raises:
        SegfolioError: not one of scales, short sides and long sides; lengths below 1.
    """

    def __init__(
        self,
        scales: Sequence[float] = (),
        short_sides: Sequence[int] = (),
        max_size: int | None = None,
        multiple: int = 1,
        flip: bool = True,
        average: Literal["logits", "probabilities"] = "probabilities",
        inner: DenseProtocol | None = None,
        store: Store = "device",
        long_sides: Sequence[int] = (),
    ) -> None:
        _check(*short_sides, *long_sides, multiple, max_size)
        given = [bool(sizes) for sizes in (scales, short_sides, long_sides)]
        if sum(given) != 1 or (max_size and not short_sides) or any(scale <= 0 for scale in scales):
            raise SegfolioError(
                f"MultiScale: scales {list(scales)}, short_sides {list(short_sides)}, long_sides {list(long_sides)}, "
                f"max_size {max_size}; give scales above 0, or short sides and perhaps the max_size of the long ones, "
                "or long sides"
            )
        self.scales, self.short_sides, self.long_sides = scales, short_sides, long_sides
        self.max_size, self.multiple = max_size, multiple
        self.flip, self.average, self.inner, self.store = flip, average, inner or Whole(), store

    @property
    def words(self) -> str:
        named = {"scales": self.scales, "short sides": self.short_sides, "long sides": self.long_sides}
        sizes = next(f"{name} {_listed(sizes)}" for name, sizes in named.items() if sizes)
        flip = ", each also mirrored" if self.flip else ""
        limits = _limits(self.max_size, self.multiple)
        return f"{sizes}{limits}{flip}, {self.average} averaged, of each: {self.inner.words}"

    def gives_logits(self, network: Network) -> bool:
        return self.inner.gives_logits(network) and self.average == "logits"

    def sizes(self, size: Size) -> list[Size]:
        """Of the views of an image of that size."""
        scales = (
            self.scales
            or [side / max(size) for side in self.long_sides]
            or [by_short_side(size, side, self.max_size) for side in self.short_sides]
        )
        return [scaled(size, scale, self.multiple) for scale in scales]

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        soften = self.inner.gives_logits(network) and self.average == "probabilities"
        total, views = None, 0
        for view in self.sizes((image.shape[-2], image.shape[-1])):
            seen = resize_image(image, view)
            for mirrored in (False, True) if self.flip else (False,):
                views += 1
                found = self.inner.tiles(network, seen.flip(-1) if mirrored else seen, size)
                for rows, columns, scores in probabilities(found, soften):
                    if mirrored:
                        columns, scores = slice(size[1] - columns.stop, size[1] - columns.start), scores.flip(-1)
                    if total is None:
                        total = zeros((len(scores), *size), scores.device, self.store)
                    total[:, rows, columns] += scores.to(total.device)
        assert total is not None
        step = max(1, BUDGET // (4 * len(total) * size[1]))
        for top in range(0, size[0], step):
            rows = slice(top, min(top + step, size[0]))
            yield rows, slice(0, size[1]), total[:, rows] / views


class MirroredExponentials(DenseProtocol):
    """Another protocol, of a network whose logits are those of what it sees and of its mirror image, added, and then
    their exponentials: not normalised, so that a mean of them trusts a sure view more (zhanghang1989/PyTorch-Encoding,
    `MultiEvalModule`). Outside of an image it is black.

    Args:
        inner: the protocol; of a network of logits.

    Raises:
        SegfolioError: when it is asked for scores of a network of probabilities.
    """

    def __init__(self, inner: DenseProtocol) -> None:
        self.inner = inner

    @property
    def words(self) -> str:
        return f"{self.inner.words}; for logits, exponentials of their sums over each view and its mirror image"

    def gives_logits(self, network: Network) -> bool:
        return False

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        if not network.logits:
            raise SegfolioError("MirroredExponentials adds logits, but this network gives probabilities; take ms_mmseg")

        def scores(images: Tensor) -> list[Scores]:
            pairs = zip(network.scores(images), network.scores(images.flip(-1)), strict=True)
            return [partial(_exponentials, *pair) for pair in pairs]

        return self.inner.tiles(
            replace(network, read=scores, logits=False, padding=torch.zeros_like(network.padding)), image, size
        )


def _exponentials(one: Scores, mirrored: Scores, size: Size) -> Tiles:
    both = collect(one(size), size) + collect(mirrored(size), size).flip(-1)
    yield slice(0, size[0]), slice(0, size[1]), both.exp_()


class DenseCRF(DenseProtocol):
    """The probabilities of another protocol, refined by a fully connected CRF over the image's colours.

    The image is the one that the data module hands over, in the colours that pictures show: if a `Resize` has reduced
    it, it is enlarged again, and its edges are as coarse as that makes them.

    Args:
        parameters: a preset of `inference.dense_crf.CRF_PRESETS`, or its numbers.
        inner: the protocol that the probabilities are from; `Whole` if not given.
        iterations: of mean field.
        normalization: of the kernels, see `dense_crf`; by default as DeepLab was run.

    Raises:
        SegfolioError: an unknown preset or normalization, iterations below 0.
    """

    def __init__(
        self,
        parameters: str | CRFParameters,
        inner: DenseProtocol | None = None,
        iterations: int = 10,
        normalization: Normalization = "after",
    ) -> None:
        if isinstance(parameters, str) and parameters not in CRF_PRESETS:
            raise SegfolioError(f"DenseCRF: parameters is {parameters!r}; the presets are {', '.join(CRF_PRESETS)}")
        check_mean_field(iterations, normalization)
        self.parameters = CRF_PRESETS[parameters] if isinstance(parameters, str) else parameters
        self.inner, self.iterations, self.normalization = inner or Whole(), iterations, normalization

    @property
    def words(self) -> str:
        how = f"{self.iterations} iterations, normalised {self.normalization}"
        return f"{self.inner.words}, then {self.parameters}, {how}"

    def gives_logits(self, network: Network) -> bool:
        return False

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        found = probabilities(self.inner.tiles(network, image, size), self.inner.gives_logits(network))
        colours = network.picture(resize_image(image, size))
        refined = dense_crf(collect(found, size), colours, self.parameters, self.iterations, self.normalization)
        yield slice(0, size[0]), slice(0, size[1]), refined


def resize_image(image: Tensor, size: Size) -> Tensor:
    """`[C, h, w]` at that size, bilinear and antialiased as torchvision's, in float32: not rounded."""
    if image.shape[-2:] == size:
        return image
    return interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]


def by_short_side(size: Size, short_side: int, max_size: int | None) -> float:
    """The scale that gives the short side its length, or the long side `max_size` if it were longer."""
    scale = short_side / min(size)
    return min(scale, max_size / max(size)) if max_size else scale


def scaled(size: Size, scale: float, multiple: int) -> Size:
    """Both sides rounded, and then up to a multiple."""
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in size)
    return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple


def find(protocol: str | DenseProtocol) -> DenseProtocol:
    """A preset by its id.

    Raises:
        SegfolioError: there is none.
    """
    if isinstance(protocol, DenseProtocol):
        return protocol
    if protocol not in PRESETS:
        raise SegfolioError(
            f"there is no test protocol {protocol!r}; the presets are {', '.join(PRESETS)}"
            f"{did_you_mean(protocol, PRESETS)}"
        )
    return PRESETS[protocol]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _limits(max_size: int | None, multiple: int) -> str:
    most = f", long side at most {max_size}" if max_size else ""
    return most + (f", sides multiples of {multiple}" if multiple > 1 else "")


def _check(*lengths: int | None) -> None:
    if wrong := [length for length in lengths if length is not None and length < 1]:
        raise SegfolioError(f"a test protocol has a length of {wrong[0]} pixels; give at least 1")


_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

PRESETS: dict[str, DenseProtocol] = {
    "whole": Whole(),
    # SETR on ADE20K; Segmenter on ADE20K, Pascal Context, Cityscapes
    "slide": Slide(512, 341),
    "slide_512": Slide(512, 512),
    "slide_480": Slide(480, 320),
    "slide_768": Slide(768, 512),
    "aligned": AlignedResize(512, 32, 2048),
    "ms_mmseg": MultiScale(_SCALES),
    # PSPNet: windows of the training's crops, that of ADE20K and VOC, that of Cityscapes
    "ms_pspnet": MultiScale(_SCALES, inner=Slide(473, average="probabilities")),
    "ms_pspnet_713": MultiScale(_SCALES, inner=Slide(713, average="probabilities")),
    # PyTorch-Encoding (EncNet, ResNeSt) on ADE20K: windows of the training's crops, those of EncNet-101 larger
    "ms_encoding": MirroredExponentials(
        MultiScale(long_sides=(260, 390, 520, 650, 780, 910), flip=False, average="logits", inner=Slide(480, 320))
    ),
    "ms_encoding_576": MirroredExponentials(
        MultiScale(long_sides=(320, 480, 640, 800, 960, 1120), flip=False, average="logits", inner=Slide(576, 384))
    ),
    # detectron2's, for models that were trained at 512 and at 640
    "ms_d2": MultiScale(short_sides=(256, 384, 512, 640, 768, 896), max_size=3584, average="logits"),
    "ms_d2_640": MultiScale(short_sides=(320, 480, 640, 800, 960, 1120), max_size=4480, average="logits"),
    "ms_dla": MultiScale((0.5, 0.75, 1.0, 1.25, 1.5), flip=False, average="logits"),
    "ms_csail": MultiScale(short_sides=(300, 375, 450, 525, 600), max_size=1000, multiple=8, flip=False),
    "ms_csail_32": MultiScale(short_sides=(300, 375, 450, 525, 600), max_size=1000, multiple=32, flip=False),  # UPerNet
    **{f"crf_{name}": DenseCRF(name) for name in CRF_PRESETS},
}
"""The papers' protocols by their ids."""
