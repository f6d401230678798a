"""Fully connected CRF with Gaussian edges, solved by mean field: sharpens class probabilities along an image's edges.

Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials (Krähenbühl & Koltun, 2011, arXiv 1210.5644),
section 3 and algorithm 1, with the Potts model, as DeepLab uses it (Chen et al., 2015, arXiv 1412.7062, section 4):

    E(x) = sum_i -log p_i(x_i) + sum_{i < j} [x_i != x_j] k(i, j)
    k(i, j) = bi_w exp(-|xy_i - xy_j|^2 / 2 bi_xy^2 - |rgb_i - rgb_j|^2 / 2 bi_rgb^2)
            + pos_w exp(-|xy_i - xy_j|^2 / 2 pos_xy^2)

Follows the paper in the filter of the bilateral kernel, the permutohedral lattice (Adams et al., 2010, Fast
High-Dimensional Filtering Using the Permutohedral Lattice, section 3), and the authors' code in that a pixel also sends
a message to itself, which algorithm 1 leaves out.
Deviates: the lattice has vertices that no pixel touches where the blur would not get from one to the next without
them; the spatial kernel is a convolution, exact up to 4 deviations, where the authors' code has a second lattice. Both
for accuracy.

Memory grows with pixels x classes and with lattice vertices x classes, never with pairs of pixels. Beyond its input,
1024 x 2048 x 19 takes 1.4 GB of a photo and 5.5 GB of pure noise, which touches the most vertices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, prod
from operator import mul
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from segfolio.errors import SegfolioError
from segfolio.precision import full_float32

Normalization = Literal["symmetric", "before", "after", "none"]
Filter = Callable[[Tensor], Tensor]
"""A kernel: `[HW, C]` to `[HW, C]`."""

BRIDGED = 2**18
"""Lattices of more vertices keep their gaps: noise fills as many more."""

POWERS: dict[str, tuple[float, float]] = {
    "symmetric": (0.5, 0.5),
    "before": (1.0, 0.0),
    "after": (0.0, 1.0),
    "none": (0.0, 0.0),
}


@dataclass(frozen=True)
class CRFParameters:
    """Weights and standard deviations of both kernels.

    Args:
        bi_w: weight of the bilateral kernel.
        bi_xy: its deviation in pixels.
        bi_rgb: its deviation in steps of 8-bit colour.
        pos_w: weight of the spatial kernel.
        pos_xy: its deviation in pixels.

    Raises:
        SegfolioError: a weight is negative or a deviation is not positive.
    """

    bi_w: float
    bi_xy: float
    bi_rgb: float
    pos_w: float
    pos_xy: float

    def __post_init__(self) -> None:
        if min(self.bi_w, self.pos_w) < 0 or min(self.bi_xy, self.bi_rgb, self.pos_xy) <= 0:
            raise SegfolioError(f"{self}: expected weights of at least 0 and deviations above 0")


CRF_PRESETS: dict[str, CRFParameters] = {
    "v1": CRFParameters(5, 50, 10, 3, 3),
    "v1_msc": CRFParameters(3, 95, 3, 3, 3),
    "v1_largefov": CRFParameters(4, 121, 5, 3, 3),
    "v1_msc_largefov": CRFParameters(4, 83, 5, 3, 3),
    "v1_coco_largefov": CRFParameters(5, 69, 5, 3, 3),
    "v1_msc_coco_largefov": CRFParameters(4, 59, 5, 3, 3),
    "v2_vgg16": CRFParameters(4, 65, 3, 2, 2),
    "v2_resnet101": CRFParameters(4, 67, 3, 3, 1),
}
"""DeepLab's, as their authors' scripts have them for PASCAL VOC 2012."""


@torch.no_grad()
def dense_crf(
    probabilities: Tensor,
    image: Tensor,
    parameters: CRFParameters,
    iterations: int = 10,
    normalization: Normalization = "after",
) -> Tensor:
    """The class probabilities of each pixel after mean field.

    Args:
        probabilities: `[C, H, W]`, of a softmax at the image's own size.
        image: `[3, H, W]` uint8.
        parameters: of the kernels, see `CRF_PRESETS`.
        iterations: of mean field (paper and DeepLab: 10).
        normalization: what a kernel is divided by. With n the sum of its row: n_i (`after`, of the authors' first
            library, which DeepLab was run with), sqrt(n_i n_j) (`symmetric`, of their second and of pydensecrf), n_j
            (`before`) or 1 (`none`, the energy above as it is written).

    Returns:
        `[C, H, W]` float32, on the device of the probabilities.

    Raises:
        SegfolioError: an argument is not as above; a probability is negative or not finite; the kernels are too narrow.
    """
    check_mean_field(iterations, normalization)
    _check(probabilities, image)
    image = image.to(probabilities.device)
    with full_float32(probabilities.device):
        unary = probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log_().flatten(1).T.contiguous()
        kernels = []
        if parameters.bi_w:
            bilateral = _bilateral(image, parameters.bi_xy, parameters.bi_rgb)
            kernels.append(_normalized(bilateral, parameters.bi_w, normalization, unary))
        if parameters.pos_w:
            kernels.append(_normalized(_spatial(image, parameters.pos_xy), parameters.pos_w, normalization, unary))
        result = unary.softmax(1)
        for _ in range(iterations):
            logits = unary.clone()
            for kernel in kernels:
                logits += kernel(result)
            result = logits.softmax(1)
    return result.T.reshape(probabilities.shape)


def check_mean_field(iterations: int, normalization: str) -> None:
    """Raises the one sentence on what is wrong with either."""
    if normalization not in POWERS:
        raise SegfolioError(f"dense CRF: expected a normalization of {', '.join(POWERS)}, found {normalization!r}")
    if iterations < 0:
        raise SegfolioError(f"dense CRF: expected iterations of at least 0, found {iterations}")


def _check(probabilities: Tensor, image: Tensor) -> None:
    """Raises the one sentence on what is wrong with the arguments of `dense_crf`."""
    found = f"{list(probabilities.shape)} {probabilities.dtype} and {list(image.shape)} {image.dtype}"
    if probabilities.ndim != 3 or not probabilities.is_floating_point() or not probabilities.numel():
        raise SegfolioError(f"dense_crf: expected probabilities [C, H, W] of floats, found {found} (image)")
    if image.dtype != torch.uint8 or image.shape != (3, *probabilities.shape[1:]):
        raise SegfolioError(
            f"dense_crf: expected an image [3, H, W] of uint8 as large as the probabilities, found {found}"
        )
    low, high = (x.item() for x in probabilities.detach().aminmax())
    if not 0 <= low <= high < float("inf"):
        raise SegfolioError(
            f"dense_crf: expected finite probabilities of at least 0, found values from {low} to {high}; "
            "of logits, take the softmax first"
        )


def _normalized(kernel: Filter, weight: float, normalization: Normalization, like: Tensor) -> Filter:
    """The kernel times its weight, divided by powers of its row sums."""
    total = kernel(like.new_ones(len(like), 1))
    before, after = (total**-power for power in POWERS[normalization])
    after *= weight
    return lambda values: kernel(values * before).mul_(after)


def _spatial(image: Tensor, sigma: float) -> Filter:
    """A Gaussian of the pixels' distance: along the columns, then along the rows."""
    _, height, width = image.shape
    radius = min(ceil(4 * sigma), max(height, width))
    block = max(16, radius)  # lines that are mixed by one matrix product
    lines = torch.arange(-radius, block + radius, device=image.device)
    distance = lines - lines[radius : radius + block, None]
    band = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= radius)

    def mix(values: Tensor) -> Tensor:
        """Along the second of three dimensions."""
        result, length = torch.empty_like(values), values.shape[1]
        for start in range(0, length, block):
            low, high = max(0, start - radius), min(length, start + block + radius)
            rows = band[: length - start, low - start + radius : high - start + radius]
            result[:, start : start + block] = rows @ values[:, low:high]
        return result

    return lambda values: mix(mix(values.view(1, height, -1)).view(height, width, -1)).view_as(values)


def _bilateral(image: Tensor, sigma_xy: float, sigma_rgb: float) -> Filter:
    """A Gaussian of the pixels' distance and of that of their colours, on a permutohedral lattice."""
    _, height, width = image.shape
    y, x = torch.meshgrid(*(torch.arange(n, device=image.device) for n in (height, width)), indexing="ij")
    features = torch.cat([torch.stack([x, y]).double() / sigma_xy, image.double() / sigma_rgb])
    return _lattice(features.flatten(1).T)


def _lattice(features: Tensor) -> Filter:
    """A Gaussian of unit deviation of the distance of `features` `[N, d]`."""
    keys, weights, steps = _embed(features)
    points, corners = keys.shape
    order = keys.flatten().argsort(stable=True)
    used, group, counts = keys.flatten()[order].unique_consecutive(return_inverse=True, return_counts=True)
    vertices = _bridged(used, steps) if len(used) <= BRIDGED else used
    places = torch.searchsorted(vertices, used)
    offsets = counts.new_zeros(len(vertices) + 1).index_copy_(0, places + 1, counts).cumsum(0).int()
    splats, splat_weights = (order // corners).int(), weights.flatten()[order]
    slices = torch.empty_like(order).scatter_(0, order, places[group]).view(points, corners).int()
    neighbours = [_neighbours(vertices, step) for step in steps]
    scale = 1 / (1 + 2.0 ** (1 - corners))

    def apply(values: Tensor) -> Tensor:
        values = embedding_bag(
            splats, values, offsets, mode="sum", per_sample_weights=splat_weights, include_last_offset=True
        )
        for places, blur in neighbours:
            values = embedding_bag(places, values, mode="sum", per_sample_weights=blur)
        return embedding_bag(slices, values, mode="sum", per_sample_weights=weights).mul_(scale)

    return apply


def _embed(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex of the lattice A*_d around each point of `features` `[N, d]` float64.

    A vertex has d + 1 integer coordinates that sum to zero; its key has the first d as digits.

    Returns:
        Keys of the simplex's vertices `[N, d + 1]` int64, barycentric weights `[N, d + 1]` float32, and by how much
        the key of the next vertex differs in each of the d + 1 directions.

    Raises:
        SegfolioError: the lattice has more vertices than int64 has numbers.
    """
    dims, like = features.shape[1], features.new_ones
    n = dims + 1
    count = like(dims).cumsum(0)
    plane = torch.cat([like(dims, 1), like(dims, dims).tril(-1) - count.diag()], 1)  # rows are orthogonal
    plane *= (2 / 3) ** 0.5 * n / (count * (count + 1)).sqrt()[:, None]  # the blur's deviation is that of a feature
    points = features @ plane
    base = (points / n).round_().mul_(n)  # the nearest vertex, as far as its sum is zero
    rank = (points - base).argsort(dim=1, descending=True, stable=True).argsort(1)
    rank += (base.sum(1, keepdim=True) / n).long()
    turn = (rank < 0).long() - (rank > dims).long()
    rank, base = rank + n * turn, base + n * turn

    ranked = torch.empty_like(points).scatter_(1, rank, (points - base) / n)
    gaps = ranked[:, :-1] - ranked[:, 1:]
    weights = torch.cat([1 - gaps.sum(1, keepdim=True), gaps.flip(1)], 1).float()

    low, high = base.amin(0) - 3 * n, base.amax(0) + 3 * n  # room for simplices, bridges and neighbours
    sizes = [1, *(high - low + 1).long().tolist()[:dims]]
    if prod(sizes) > torch.iinfo(torch.int64).max:
        raise SegfolioError("dense_crf: bi_xy and bi_rgb are too small for an image of this size; expected larger ones")
    digits = torch.tensor([*accumulate(sizes[:dims], mul), 0], device=features.device)
    # From one vertex to the next all coordinates grow by 1, but that of the next lower rank falls by d.
    falls = torch.empty_like(rank).scatter_(1, rank, digits.expand_as(rank))[:, 1:].flip(1).cumsum(1)
    first = ((base - low).long() * digits).sum(1, keepdim=True)
    others = first + digits.sum() * torch.arange(1, n, device=features.device) - n * falls
    return torch.cat([first, others], 1), weights, digits.sum() - n * digits


def _bridged(keys: Tensor, steps: Tensor) -> Tensor:
    """Adds vertices next to two or more, which the blur would otherwise not get across."""
    nearby = (keys + torch.cat([steps, -steps])[:, None]).flatten()
    vertices, counts = torch.cat([keys, keys, nearby]).unique(return_counts=True)
    return vertices[counts > 1]


def _neighbours(keys: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Places and weights `[M, 3]` of each vertex and of those before and after it; of one that is not there, 0."""
    here = torch.arange(len(keys), device=keys.device)
    after = torch.searchsorted(keys, keys + step).clamp_(max=len(keys) - 1)
    found = keys[after] == keys + step
    places = torch.stack([here, here, here], 1)
    places[found, 1] = after[found]
    places[after[found], 2] = here[found]
    weights = torch.where(places == here[:, None], 0.0, 0.5)
    weights[:, 0] = 1
    return places.int(), weights
