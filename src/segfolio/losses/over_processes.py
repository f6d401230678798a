"""What a loss divides by, and what it compares with, where a batch is divided over processes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def over_processes(values: Sequence[float], device: torch.device) -> tuple[Tensor, int]:
    """The sums, and of how many processes."""
    sums = torch.tensor(values, dtype=torch.float32, device=device)
    if not (dist.is_available() and dist.is_initialized()):
        return sums, 1
    dist.all_reduce(sums)
    return sums, dist.get_world_size()


def share_of_each(values: Sequence[float], device: torch.device) -> Tensor:
    """What a sum over this process' part is divided by, so that the mean over processes is that of the whole batch: of
    each value the sum over all processes, at least 1, by how many they are."""
    sums, processes = over_processes(values, device)
    return sums.clamp(min=1) / processes


def of_all_processes(x: Tensor) -> tuple[Tensor, int]:
    """What all processes have, one after the other, with gradients, and the place of this one's first; all have as
    many."""
    if not (dist.is_available() and dist.is_initialized()):
        return x, 0
    return torch.cat(all_gather(x.contiguous())), dist.get_rank() * len(x)
