"""`Checkpoints`: which step is the best, which the last, and that a file is whole or not there."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from segfolio.callbacks.checkpoints import Checkpoints
from tests.tiny import Tiny, loader, trainer

nan = math.nan


class Scored(Tiny):
    """The n-th epoch's validation finds the n-th score; an epoch has four steps."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores = scores

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/mIoU", self.scores[self.current_epoch], batch_size=len(batch))


def fit(run: Path, scores: Sequence[float], resume: str | None = None, **kwargs: Any) -> None:
    t = trainer(run, Checkpoints(), **{"max_epochs": len(scores), "enable_checkpointing": True, **kwargs})
    t.fit(Scored(scores), loader(), loader(), ckpt_path=resume)


def step(run: Path, name: str) -> int:
    return torch.load(run / "checkpoints" / name, weights_only=True)["global_step"]


def steps(run: Path) -> dict[str, int]:
    """The step of every file in the folder of checkpoints."""
    return {path.name: step(run, path.name) for path in (run / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.3, 0.7, 0.5), 8),
        ((0.3, 0.3), 4),  # the first of equals, and not the sanity check
        ((0.0, nan), 4),
        ((nan, 0.2, nan, 0.1), 8),
        ((0.5, nan, 0.6), 12),
    ],
)
def test_best_follows_the_main_metric_and_is_never_nan(tmp_path: Path, scores: Sequence[float], best: int) -> None:
    fit(tmp_path, scores)
    assert steps(tmp_path) == {"best.ckpt": best, "last.ckpt": 4 * len(scores)}


def test_without_a_score_there_is_no_best(tmp_path: Path) -> None:
    fit(tmp_path, (nan, nan))
    assert steps(tmp_path) == {"last.ckpt": 8}


def test_last_is_of_the_last_step_also_between_two_validations(tmp_path: Path) -> None:
    fit(tmp_path, (0.3, 0.2), max_steps=7)
    assert steps(tmp_path) == {"best.ckpt": 4, "last.ckpt": 7}


def test_a_numbered_run_is_the_latest_from_its_first_checkpoint_on(tmp_path: Path) -> None:
    fit(tmp_path / "3", (0.3,))
    assert (tmp_path / "latest").resolve() == tmp_path / "3"


def test_a_resumed_run_remembers_its_best(tmp_path: Path) -> None:
    fit(tmp_path, (0.3, 0.7))
    fit(tmp_path, (0.3, 0.7, 0.6), resume=str(tmp_path / "checkpoints/last.ckpt"))
    assert steps(tmp_path) == {"best.ckpt": 8, "last.ckpt": 12}


def test_a_run_that_breaks_off_has_the_checkpoint_before(tmp_path: Path) -> None:
    model = Scored((0.5,))
    model.step = Mock(side_effect=[None] * 5 + [RuntimeError("power cut")])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path, Checkpoints(every_n_steps=2), enable_checkpointing=True).fit(model, loader())
    assert steps(tmp_path) == {"last.ckpt": 4}


def half_written(path: Path) -> None:
    path.write_bytes(b"half of a checkpoint")
    raise OSError("no space left on device")


def test_a_failure_while_writing_last_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, (0.5,))
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self, path, **_: half_written(path))
    with pytest.raises(OSError, match="no space"):
        fit(tmp_path, (0.5, 0.6))
    monkeypatch.undo()
    assert step(tmp_path, "last.ckpt") == 4
    fit(tmp_path, (0.5,))
    assert steps(tmp_path) == {"best.ckpt": 4, "last.ckpt": 4}  # what was unfinished is gone


def test_a_failure_while_writing_best_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, (0.5,))
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: half_written(target))
    with pytest.raises(OSError, match="no space"):
        fit(tmp_path, (0.5, 0.6), resume=str(tmp_path / "checkpoints/last.ckpt"))
    assert (step(tmp_path, "best.ckpt"), step(tmp_path, "last.ckpt")) == (4, 8)
