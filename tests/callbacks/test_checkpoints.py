"""`Checkpoints`: which step is the best, which the last, and that a file is whole or not there."""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.figure import Figure
from tests.tiny import Tiny, loader, trainer

nan = math.nan


class Scored(Tiny):
    """The n-th epoch's validation finds the n-th score; an epoch has four steps."""

    def __init__(self, scores: Sequence[float], figure: Figure = Tiny.main_figure) -> None:
        super().__init__()
        self.scores, self.main_figure = scores, figure

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log(f"val/{self.main_figure.name}", self.scores[self.current_epoch], batch_size=len(batch))


def fit(
    run: Path, scores: Sequence[float], figure: Figure = Tiny.main_figure, resume: bool = False, **kwargs: Any
) -> None:
    t = trainer(run, Checkpoints(), **{"max_epochs": len(scores), "enable_checkpointing": True, **kwargs})
    t.fit(Scored(scores, figure), loader(), loader(), ckpt_path=run / "checkpoints/last.ckpt" if resume else None)


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


@pytest.mark.parametrize(("scores", "best"), [((9.1, 2.5, 3.0), 8), ((nan, 2.5, 2.5), 8), ((2.5, nan), 4)])
def test_of_a_figure_that_is_better_lower_the_best_is_the_lowest(
    tmp_path: Path, scores: Sequence[float], best: int
) -> None:
    fit(tmp_path, scores, Figure("NoC90", "clicks", higher_is_better=False))
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
    fit(tmp_path, (0.3, 0.7, 0.6), resume=True)
    assert steps(tmp_path) == {"best.ckpt": 8, "last.ckpt": 12}


def test_a_run_that_breaks_off_has_the_checkpoint_before(tmp_path: Path) -> None:
    model = Scored((0.5,))
    model.step = Mock(side_effect=[None] * 5 + [RuntimeError("power cut")])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path, Checkpoints(every_n_steps=2), enable_checkpointing=True).fit(model, loader())
    assert steps(tmp_path) == {"last.ckpt": 4}


@pytest.mark.parametrize(("every", "epochs", "step"), [(1.0, 1, 4), (3, None, 6), (2, 1, 6), (0.5, 1, 6)])
def test_where_nothing_is_validated_it_writes_when_a_validation_would_follow(
    tmp_path: Path, every: float, epochs: int | None, step: int
) -> None:
    model = Scored(())
    model.step = Mock(side_effect=[None] * 7 + [RuntimeError("power cut")])  # an epoch has four steps
    interval = {"val_check_interval": every, "check_val_every_n_epoch": epochs}
    with pytest.raises(RuntimeError, match="power cut"):
        trainer(tmp_path, Checkpoints(), enable_checkpointing=True, **interval).fit(model, loader())
    assert steps(tmp_path) == {"last.ckpt": step}


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


def test_a_copy_that_fails_leaves_nothing_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path, (0.5,))
    monkeypatch.setattr("segfolio.callbacks.checkpoints.shutil.copyfile", lambda _, target: half_written(target))
    with pytest.raises(OSError, match="no space"):
        fit(tmp_path, (0.5, 0.7), resume=True)
    assert steps(tmp_path) == {"best.ckpt": 4, "last.ckpt": 4}


def power_cut(*_: object) -> None:
    raise OSError("power cut")


@pytest.mark.parametrize(
    ("name", "cut", "best"),
    [
        ("shutil.copyfile", lambda replace, source, target: half_written(target), 4),
        ("os.replace", lambda replace, source, target: power_cut(), 4),
        ("os.replace", lambda replace, source, t: power_cut() if t.name == "last.ckpt" else replace(source, t), 8),
    ],
    ids=["copying best", "best copied", "best there, last not"],
)
def test_a_run_cut_while_it_writes_its_best_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cut: Callable[..., None], best: int
) -> None:
    fit(tmp_path, (0.5,))
    whole = {"shutil.copyfile": shutil.copyfile, "os.replace": os.replace}[name]
    monkeypatch.setattr(f"segfolio.callbacks.checkpoints.{name}", partial(cut, whole))
    with pytest.raises(OSError, match=r"no space|power cut"):
        fit(tmp_path, (0.5, 0.7), resume=True)
    monkeypatch.undo()
    assert (step(tmp_path, "best.ckpt"), step(tmp_path, "last.ckpt")) == (best, 4)
    fit(tmp_path, (0.5, 0.7, 0.6), resume=True)
    assert steps(tmp_path) == {"best.ckpt": 8, "last.ckpt": 12}  # nothing unfinished is left
