"""`OneFormerLoss`: its contrastive part, on any number of processes. The whole is beside transformers' in the
network's tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.losses import OneFormerLoss
from segfolio.losses.one_former import contrastive
from tests.conftest import REPOSITORY

SCALE = torch.tensor(1.5)


def vectors() -> list[Tensor]:
    """Queries and texts of four images."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 5, generator=generator).requires_grad_() for _ in range(2)]


def train_step(rank: int, folder: str) -> None:
    """The loss and the gradients of the four images, as DDP would average them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    queries, texts = vectors()
    own = slice(2 * rank, 2 * rank + 2)
    loss = contrastive(queries[own], texts[own], SCALE)
    loss.backward()
    gradients = [(x.grad / 2).tolist() for x in (queries, texts) if x.grad is not None]
    Path(folder, f"{rank}.json").write_text(json.dumps({"loss": loss.item(), "gradients": gradients}))
    dist.destroy_process_group()


def test_the_mean_of_two_processes_is_the_loss_of_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.losses.test_one_former", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, timeout=300, check=True)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    queries, texts = vectors()
    whole = contrastive(queries, texts, SCALE)
    whole.backward()
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(whole.item(), rel=1e-5)
    for place, x in enumerate((queries, texts)):
        assert x.grad is not None
        added = torch.tensor(first["gradients"][place]) + torch.tensor(second["gradients"][place])
        torch.testing.assert_close(added, x.grad, rtol=1e-4, atol=1e-6)


def test_own_texts_are_to_be_the_most_alike() -> None:
    queries = torch.eye(4).reshape(4, 2, 2)
    right, wrong = (contrastive(queries, texts, torch.tensor(3.0)) for texts in (queries, queries.roll(1, 0)))
    assert right < 0.5
    assert wrong > 30
    assert contrastive(queries, queries, torch.tensor(50.0)) < 1e-6  # multiplied by 100 at most
    assert contrastive(queries, queries.roll(1, 0), torch.tensor(50.0)) == pytest.approx(200, rel=1e-3)


def test_a_weight_below_0_is_refused() -> None:
    with pytest.raises(SegfolioError, match="contrastive_weight of OneFormerLoss is -1"):
        OneFormerLoss(contrastive_weight=-1)


if __name__ == "__main__":
    mp.start_processes(train_step, (sys.argv[1],), 2, start_method="fork")
