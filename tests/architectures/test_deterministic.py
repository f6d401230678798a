"""`trainer.deterministic` works for every per-pixel network: to the bit on the CPU, and without refusal on CUDA."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from segfolio.losses.cross_entropy import cross_entropy
from tests.architectures.test_contract import every_network, pixel_logits, shapes

REFUSED_ON_CUDA = {
    *("adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "fractional_max_pool2d_backward"),
    *("max_unpool2d", "reflection_pad2d_backward", "grid_sampler_2d_backward", "histc", "median", "put_"),
    *("upsample_linear1d_backward", "upsample_bicubic2d_backward"),
    *("_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward", "nll_loss2d_forward"),
}
"""What the documentation of `torch.use_deterministic_algorithms` lists, torch 2.14, by the operator's name; but for bi-
and trilinear upsampling, which `interpolate` does by other operators on CUDA then."""

INTRINSIC = {name: {"grid_sampler_2d_backward"} for name in ("InternImage", "Mask2Former", "OneFormer")}
"""What a network is refused for and says so: it needs `trainer.deterministic: warn`."""


class Operators(TorchDispatchMode):
    """Collects those of `REFUSED_ON_CUDA` that are called, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in REFUSED_ON_CUDA and not (name == "nll_loss2d_forward" and args[3] == 0):  # not reduced
            self.refused.add(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def after_two_steps(cls: Any, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    network = cls(4, **cls.tiny)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        train(network)
        optimizer.step()
        optimizer.zero_grad()
    return list(network.state_dict().values())


def train(network: nn.Module) -> None:
    images, target = shapes()
    logits = interpolate(pixel_logits(network(images)), target.shape[-2:])
    cross_entropy(logits, target, ignore_index=255).backward()


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_network
def test_the_same_seed_gives_the_same_weights_to_the_bit(cls: Any) -> None:
    once = after_two_steps(cls, seed=0)
    assert equal(once, after_two_steps(cls, seed=0))
    assert not equal(once, after_two_steps(cls, seed=1))


@every_network
def test_no_operation_is_refused_on_cuda(cls: Any) -> None:
    with Operators() as operators:
        train(cls(4, **cls.tiny))
    assert operators.refused == INTRINSIC.get(cls.__name__, set())


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (nn.Upsample(scale_factor=2, mode="bicubic"), "upsample_bicubic2d_backward"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Upsample((64, 64))), "_adaptive_avg_pool2d_backward"),
        (nn.CrossEntropyLoss(), "nll_loss2d_forward"),
    ],
)
def test_such_operations_are_recognised(layer: nn.Module, operator: str) -> None:
    images, target = shapes()
    arguments = (images.requires_grad_(), *([target % 3] if isinstance(layer, nn.CrossEntropyLoss) else []))
    with Operators() as operators:
        layer(*arguments).sum().backward()
    assert operators.refused == {operator}
