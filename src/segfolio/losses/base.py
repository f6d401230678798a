"""What the losses of per-pixel classification share."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.checkpoint import checkpoint

from segfolio.errors import SegfolioError

Compute = Callable[..., Tensor]


class Loss(nn.Module):
    """A loss between per-pixel logits and a map of class indices.

    Logits of another size than the map are resized to it bilinearly, corners not aligned; `pixel_sum` and
    `of_each_image` do that at the memory of one image. Every loss computes in float32 whatever the logits' type, leaves
    ignored pixels without influence on its value or gradient, and is 0, with zero gradients, where every pixel is
    ignored.
    """

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            logits: `[B, C, h, w]`.
            target: `[B, H, W]` int64, 0 to C - 1 or `ignore_index`.
            ignore_index: value of a pixel without a class.
            weight: `[B, H, W]`, a factor for each pixel.
        """
        raise NotImplementedError


def of_each_image(compute: Compute, logits: Tensor, target: Tensor, *others: Tensor | None) -> Tensor:
    """What `compute(logits, target, *others)` makes of logits of the target's size, `[B, ...]`.

    Where they have to be resized, images take turns, and each is computed a second time in the backward pass: of
    resized logits, their softmax and its gradient only one image's are held. Of 150 classes at 512 x 512, 16 images
    would fill 2.5 GB with each of the three, and once more for every auxiliary loss.

    Args:
        compute: of `[b, C, H, W]`, `[b, H, W]` and `[b, ...]`; it treats each image by itself.
        logits: `[B, C, h, w]`.
        target: `[B, H, W]`.
        others: `[B, ...]`, or None.
    """
    if logits.shape[-2:] == target.shape[-2:]:
        return compute(logits, target, *others)

    def resized(one: Tensor, *given: Tensor | None) -> Tensor:
        return compute(_resized(one, target), *given)

    each = _images(logits, target, *others)
    return torch.cat([checkpoint(resized, *one, use_reentrant=False, preserve_rng_state=False) for one in each])


def pixel_sum(compute: Compute, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted sum of what `compute(logits, target)` says of each pixel, `[B, H, W]`.

    As `of_each_image`, at the memory of one image, but nothing is computed twice: how a sum depends on the logits is
    known as soon as it is.

    Args:
        compute: as there; no parameters are learned in it.
        weight: `[B, H, W]`, or None.
    """
    if logits.shape[-2:] == target.shape[-2:]:
        return _weighted(compute(logits, target), weight)
    total: Tensor = _SumOfResized.apply(logits, target, weight, compute)
    return total


class _SumOfResized(Function):
    """Its backward pass has but to scale the gradient that the forward pass leaves."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, compute: Compute) -> Tensor:
        wanted, sums, gradients = ctx.needs_input_grad[0], list[Tensor](), list[Tensor]()
        for one, truth, factor in _images(logits, target, weight):
            assert one is not None
            leaf = one.detach().float().requires_grad_(wanted)  # a gradient that nobody has scaled yet is lost in half
            with torch.set_grad_enabled(wanted):
                sums.append(_weighted(compute(_resized(leaf, target), truth), factor))
            if wanted:
                gradients += torch.autograd.grad(sums[-1], leaf)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(*([torch.cat(gradients)] if wanted else []))
        return torch.stack(sums).detach().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * scale).to(ctx.dtype), None, None, None


def _images(*given: Tensor | None) -> Iterator[list[Tensor | None]]:
    """Of each image the parts of all that is given, each a batch of one."""
    assert given[0] is not None
    for at in range(len(given[0])):
        yield [x if x is None else x[at : at + 1] for x in given]


def _resized(logits: Tensor, target: Tensor) -> Tensor:
    return interpolate(logits, (target.shape[-2], target.shape[-1]), mode="bilinear", align_corners=False)


def _weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    return loss.sum() if weight is None else (loss * weight).sum()


def pixel_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of each pixel, `[B, H, W]`, 0 at ignored ones, of logits `[B, C, H, W]`."""
    return cross_entropy(
        logits.float(),
        target,
        class_weight,
        ignore_index=ignore_index,
        reduction="none",  # torch's own "mean" and "sum" in 2-D have no deterministic CUDA kernel
        label_smoothing=label_smoothing,
    )


def valid_pixels(target: Tensor, ignore_index: int) -> Tensor:
    """How many are not ignored, at least 1: the divisor of a mean.

    Weights do not enter it: a weight of 2 counts the pixel twice whatever else the batch holds.
    """
    return (target != ignore_index).sum().clamp_min(1)


def class_factors(factors: Tensor | None, logits: Tensor, argument: str) -> Tensor | None:
    """`[C]` float32.

    Raises:
        SegfolioError: not one factor per class.
    """
    if factors is None:
        return None
    if len(factors) != logits.shape[1]:
        raise SegfolioError(
            f"{argument} has {len(factors)} values but the logits have {logits.shape[1]} classes; "
            "list one value per class, in the order of the label space"
        )
    return factors.float()


def as_tensor(values: list[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)
