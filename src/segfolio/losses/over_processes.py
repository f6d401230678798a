"""What a loss divides by, where a batch is divided over processes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def over_processes(values: Sequence[float], device: torch.device) -> tuple[Tensor, int]:
    """The sums, and of how many processes."""
    sums = torch.tensor(values, dtype=torch.float32, device=device)
    if not (dist.is_available() and dist.is_initialized()):
        return sums, 1
    dist.all_reduce(sums)
    return sums, dist.get_world_size()
