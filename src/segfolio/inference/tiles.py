"""Scores per pixel that are never all there: tiles of them, from the network to the class of each pixel.

`Tiles` is what protocols take from a network and hand on. A tile is a part of the image with the scores of its C
classes, in float32; together the tiles cover every pixel once. A tile is valid until the next one is asked for, and
is not to be written to.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.data.image_space import RGB
from segfolio.data.sample import Size
from segfolio.errors import SegfolioError

BUDGET = 32 * 2**20
"""Bytes of the maps that are held at one time, beside input and result."""

Tile = tuple[slice, slice, Tensor]
"""Rows, columns, scores `[C, rows, columns]`."""
Tiles = Iterator[Tile]
Scores = Callable[[Size], Tiles]
"""What a network says of one image, to be read at any size."""
Store = Literal["device", "cpu", "disk"]
"""Where sums of scores lie: beside the network, in host memory, or in a temporary file."""


@dataclass(frozen=True)
class Network:
    """What a protocol needs to know of a network.

    Attributes:
        read: scores of each image of a batch `[B, C, h, w]`, as the dataset has them.
        logits: whether scores are logits of a softmax; else they are probabilities.
        padding: `[C, 1, 1]`, the pixel that an image is padded with: the mean, which is 0 after normalisation.
        picture: an image `[C, h, w]`, or floats between its values, for the eye: `[3, h, w]` uint8.
    """

    read: Callable[[Tensor], Sequence[Scores]]
    logits: bool
    padding: Tensor
    picture: Callable[[Tensor], Tensor] = RGB.picture

    def scores(self, images: Tensor) -> Sequence[Scores]:
        """Of each image of a batch `[B, C, h, w]`, as the dataset has them.

        Raises:
            SegfolioError: images so small that nothing is left of them in the network.
        """
        try:
            return self.read(images)
        except RuntimeError as error:
            height, width = images.shape[-2:]
            if min(height, width) >= 32:  # the stride of most networks
                raise
            raise SegfolioError(
                f"the network cannot read {height}x{width} pixels, which the test protocol shows it ({error}); "
                "give the protocol larger scales, sides or windows"
            ) from error


class DenseProtocol:
    """How a test comes from an image to its scores at the original size. One class, or one preset, is one protocol."""

    @property
    def words(self) -> str:
        """The protocol in the words of the ledger."""
        raise NotImplementedError

    def gives_logits(self, network: Network) -> bool:
        """Whether the scores of `tiles` are logits; else they are probabilities."""
        return network.logits

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        """Scores of one image at the size that is asked for.

        Args:
            image: `[C, h, w]`, as the dataset has them.
        """
        raise NotImplementedError

    def read(self, network: Network, images: Tensor, sizes: Sequence[Size]) -> Iterator[Tiles]:
        """The `tiles` of each image of a batch `[B, C, h, w]`."""
        for image, size in zip(images, sizes, strict=True):
            yield self.tiles(network, image, size)


def argmax(tiles: Tiles, size: Size) -> Tensor:
    """`[H, W]`, the best class of each pixel: uint8, int16 of more than 256 classes."""
    result = torch.empty(0)
    for rows, columns, scores in tiles:
        if not result.numel():
            dtype = torch.uint8 if len(scores) <= 256 else torch.int16
            result = torch.empty(size, dtype=dtype, device=scores.device)
        result[rows, columns] = scores.max(0).indices  # on a CPU two to three times as fast as argmax
    return result


def collect(tiles: Tiles, size: Size, store: Store = "device") -> Tensor:
    """`[C, H, W]`, all scores."""
    whole = torch.empty(0)
    for rows, columns, scores in tiles:
        if not whole.numel():
            whole = zeros((len(scores), *size), scores.device, store)
        whole[:, rows, columns] = scores.to(whole.device)
    return whole


def probabilities(tiles: Tiles, logits: bool) -> Tiles:
    """The same tiles with a softmax over the classes, where they are logits."""
    for rows, columns, scores in tiles:
        yield rows, columns, scores.softmax(0) if logits else scores


def resized(maps: Tensor, size: Size, budget: int = BUDGET) -> Tiles:
    """`[C, h, w]` read at `size`, in bands of rows."""
    height, width = size
    if maps.shape[-2:] == size:
        yield slice(0, height), slice(0, width), maps.float()
        return
    for rows, band in bands(maps, size, budget):
        yield rows, slice(0, width), band


def bands(maps: Tensor, size: Size, budget: int, beside: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the result, and `maps` `[N, h, w]` there: `[N, rows, W]` float32, to be overwritten at will.

    Bilinear, corners not aligned. Each row is mixed from two before columns are, so that it is the same in any band.

    Args:
        beside: float maps that the caller makes of a band, beside its own.
    """
    (number, height, width), (out_height, out_width) = maps.shape, size
    source = (
        torch.arange(out_height, dtype=torch.float32, device=maps.device)
        .add(0.5)
        .mul(height / out_height)
        .sub(0.5)
        .clamp(min=0)
    )
    low = source.long()
    high = (low + 1).clamp(max=height - 1)
    weight = (source - low)[:, None]
    row_bytes = 4 * (2 * number * (width + out_width) + beside * out_width)  # the caller still holds the last band
    step = max(1, budget // row_bytes)
    for start in range(0, out_height, step):
        rows = slice(start, min(start + step, out_height))
        band = maps[:, low[rows]].float().lerp_(maps[:, high[rows]].float(), weight[rows])
        yield rows, interpolate(band[None], (band.shape[1], out_width), mode="bilinear", align_corners=False)[0]


def zeros(shape: tuple[int, ...], device: torch.device, store: Store = "device") -> Tensor:
    """float32; of `disk` a temporary file that is mapped, and gone with the tensor."""
    if store != "disk":
        return torch.zeros(shape, dtype=torch.float32, device=device if store == "device" else "cpu")
    size = torch.Size(shape).numel()
    with tempfile.NamedTemporaryFile(prefix="segfolio-") as file:
        file.truncate(4 * size)
        return torch.from_file(file.name, shared=True, size=size, dtype=torch.float32).view(shape)
