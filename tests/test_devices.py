"""The pretended device refuses what CUDA refuses, and nothing else."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.devices import DEVICE, PretendedDevice

HOST = torch.device("cpu")


@pytest.fixture(autouse=True)
def _pretended() -> Iterator[None]:
    with PretendedDevice():
        yield


def there(*shape: int) -> Tensor:
    return torch.ones(shape).to(DEVICE)


class WithConstant(nn.Module):
    """The commonest mistake: a tensor that is neither a buffer nor made where the input is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor([2.0, 3.0])

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale


MISTAKES: dict[str, Callable[[], object]] = {
    "constant": lambda: WithConstant().to(DEVICE)(there(2)),
    "no device=": lambda: there(3) + torch.arange(3),
    "weights left behind": lambda: nn.Linear(3, 3)(there(3)),
    "input left behind": lambda: nn.Linear(3, 3).to(DEVICE)(torch.ones(3)),
    "index of the other device": lambda: torch.ones(3)[there(3).bool()],
    "value of the other device": lambda: there(3).__setitem__(there(3).bool(), torch.ones(3)),
    "stacked numbers": lambda: torch.stack([there(3).sum(), torch.tensor(1.0)]),
    "number there, tensor here": lambda: torch.ones(3) * there(3).sum(),
    "numpy": lambda: there(3).numpy(),
    "numpy by protocol": lambda: there(3).detach().__array__(),
    "view": lambda: there(4, 4)[0].as_subclass(Tensor) + torch.ones(4),
    "output of several": lambda: there(4, 4).max(1).indices + torch.ones(4),
    "iteration": lambda: [row + torch.ones(4) for row in there(4, 4)],
    "gradient": lambda: gradient() + torch.ones(3),
}


def gradient() -> Tensor:
    weight = nn.Parameter(there(3))
    (weight * 2).sum().backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused(mistake: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, TypeError), match="cuda:0"):
        mistake()


@pytest.mark.parametrize(
    ("made", "place"),
    [
        (lambda: there(3) * torch.tensor(2.0), DEVICE),
        (lambda: there(3)[torch.tensor([0, 2])], DEVICE),
        (lambda: there(3).cpu() + torch.ones(3), HOST),
        (lambda: torch.zeros(3, device=there(1).device) + there(3), DEVICE),
        (lambda: torch.zeros_like(there(3)) + there(3), DEVICE),
        (lambda: torch.ones(3).copy_(there(3)), HOST),
        (lambda: torch.ones(3).to(there(1)) + there(3), DEVICE),
        (lambda: torch.from_numpy(there(3).cpu().numpy()), HOST),
        (lambda: next(nn.Linear(2, 2).to(DEVICE).parameters()).detach(), DEVICE),
    ],
)
def test_what_cuda_allows_is_where_it_would_be(made: Callable[[], Tensor], place: torch.device) -> None:
    found = made()
    assert found.device == place
    assert found.is_cuda == (place == DEVICE)


def test_what_is_moved_is_another_tensor() -> None:
    here = torch.zeros(3)
    here.to(DEVICE).add_(1)
    there(3).cpu().add_(1)
    assert here.tolist() == [0, 0, 0]
    assert here.device == HOST


def test_values_are_real() -> None:
    values = torch.tensor([3.0, 1.0]).to(DEVICE)
    assert values.tolist() == [3.0, 1.0]
    assert values.max().item() == 3.0
    assert bool((values > 2).any())
