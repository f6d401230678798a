"""`StepSeed`: what a step draws, whatever was drawn before."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import dropout

from segfolio.callbacks.randomness import StepSeed
from tests.tiny import Tiny, loader, trainer


def draws(seed: int = 0, step: int = 0, rank: int = 0) -> list[Any]:
    """A dropout mask, and a number each of NumPy's and Python's generators."""
    process: Any = SimpleNamespace(global_rank=rank, fit_loop=SimpleNamespace(total_batch_idx=step))
    StepSeed(seed).on_train_batch_start(process, None, None, 0)  # type: ignore[arg-type]
    return [dropout(torch.ones(64)).tolist(), np.random.rand(), random.random()]  # noqa: NPY002


def test_the_same_seed_step_and_process_draw_the_same() -> None:
    first = draws(seed=3, step=5, rank=1)
    assert 0 < first[0].count(0) < 64
    draws(seed=8, step=13)
    assert draws(seed=3, step=5, rank=1) == first


@pytest.mark.parametrize("argument", ["seed", "step", "rank"])
def test_another_seed_step_or_process_draws_something_else(argument: str) -> None:
    """The three are not added up, either: 1 in one place is not 1 in another."""
    for a, b in zip(draws(), draws(**{argument: 1}), strict=True):
        assert a != b
    others = [draws(**{name: 1}) for name in ("seed", "step", "rank") if name != argument]
    assert draws(**{argument: 1}) not in others


class Drawing(Tiny):
    """Notes what each forward pass of training draws; its validation draws, too."""

    def __init__(self) -> None:
        super().__init__(lambda: self.drawn.append(torch.rand(()).item()), lambda: torch.rand(7))
        self.drawn: list[float] = []


def drawn(run: Path, **arguments: Any) -> list[float]:
    model = Drawing()
    trainer(run, StepSeed(0), **arguments).fit(model, loader(), loader())
    return model.drawn


def test_forward_passes_differ_and_validation_between_them_changes_nothing(tmp_path: Path) -> None:
    whole = drawn(tmp_path, limit_val_batches=0)
    assert len(set(whole)) == 8  # two epochs of four batches
    assert drawn(tmp_path, val_check_interval=1) == whole
    assert drawn(tmp_path, accumulate_grad_batches=2) == whole
