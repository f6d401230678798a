"""A run that is stopped or cut keeps what it counts: checkpoints between steps, each with its entries on disk."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb

from segfolio.callbacks.checkpoints import Checkpoints
from segfolio.data.formats.images import write_image
from segfolio.files import write_atomically
from segfolio.tracking import MetricsFile, Wandb
from tests.test_cli import SMALL
from tests.tiny import Tiny, loader, logged, trainer


class At:
    """Does something at the n-th call."""

    def __init__(self, call: int, do: Callable[[], Any]) -> None:
        self.call, self.do, self.calls = call, do, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.call:
            self.do()


def fit(run: Path, do: Callable[[], Any] = int, resume: bool = False, every: int | None = None, **kwargs: Any) -> None:
    """Two epochs of four batches."""
    t = trainer(run, Checkpoints(every), **{"enable_checkpointing": True, "log_every_n_steps": 1, **kwargs})
    path = run / "checkpoints/last.ckpt"
    if resume:
        logger: Any = t.loggers[0]
        logger.rewind(torch.load(path, weights_only=True)["history"][0])
    t.fit(Tiny(do), loader(), loader(), ckpt_path=path if resume else None)


def killed() -> None:
    raise KeyboardInterrupt


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def ctrl_c(request) -> Iterator[Callable[[], None]]:
    """Ctrl-C, or the end that a scheduler or a container announces."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda: os.kill(os.getpid(), request.param)
    signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored


@pytest.mark.parametrize(("accumulate", "step"), [(1, 3), (2, 2)])
def test_ctrl_c_keeps_the_step_at_hand_and_says_how_to_go_on(tmp_path, capsys, ctrl_c, accumulate, step):
    run, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(SystemExit):
        fit(run, At(3, ctrl_c), accumulate_grad_batches=accumulate)
    assert last(run)["global_step"] == step
    assert {path.name for path in (run / "checkpoints").iterdir()} <= {"last.ckpt", "best.ckpt"}
    assert f"segfolio fit --ckpt_path {run}/checkpoints/last.ckpt" in capsys.readouterr().err
    fit(run, resume=True, accumulate_grad_batches=accumulate)
    fit(whole, accumulate_grad_batches=accumulate)
    assert logged(run, "step") == logged(whole, "step")


@pytest.mark.parametrize("ctrl_c", [signal.SIGINT], indirect=True)
def test_ctrl_c_twice_stops_at_once(tmp_path, ctrl_c):
    def twice() -> None:
        ctrl_c()
        time.sleep(0.2)  # of two signals that nobody has seen the system keeps one
        ctrl_c()

    with pytest.raises(SystemExit):
        fit(tmp_path, At(3, twice))
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_gets_its_name_once_its_entries_are_on_disk(tmp_path, monkeypatch):
    """The kill is between the checkpoint of a step and the entry of that step."""
    tell = MetricsFile.log_metrics

    def killed(self: MetricsFile, metrics: Any, step: int | None = None) -> None:
        if step == 3:
            raise KeyboardInterrupt
        tell(self, metrics, step)

    monkeypatch.setattr(MetricsFile, "log_metrics", killed)
    with pytest.raises(SystemExit):
        fit(tmp_path, every=2)
    monkeypatch.undo()
    assert last(tmp_path)["global_step"] == 2
    fit(tmp_path, resume=True, every=2)
    assert logged(tmp_path, "step") == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7]  # and those of two validations
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


@pytest.mark.parametrize("call", [2, 3])
@pytest.mark.parametrize("every", [1, 2])
def test_a_kill_in_a_validation_does_not_lose_it(tmp_path, monkeypatch, every, call):
    """Also where a checkpoint would be due at its step."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    halves = {"every": every, "val_check_interval": 2, "num_sanity_val_steps": 0}
    calls = At(call, killed)
    start = Checkpoints.on_validation_start
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "on_validation_start", lambda *given: (start(*given), calls()))
        with pytest.raises(SystemExit):
            fit(run, **halves)
    fit(run, resume=True, **halves)
    fit(whole, **halves)
    assert logged(run, "step") == logged(whole, "step")
    assert len(logged(run, "val/mIoU")) == 4
    assert last(run)["callbacks"]["Checkpoints"] == last(whole)["callbacks"]["Checkpoints"]


@pytest.mark.parametrize("resume", [False, True], ids=["fresh", "resumed"])
def test_no_checkpoint_lies_inside_an_accumulated_step(tmp_path, monkeypatch, resume):
    saved: list[tuple[int, int]] = []
    write = Checkpoints._write

    def seen(self: Checkpoints, t: Any, best: bool = False) -> None:
        saved.append((t.global_step, t.fit_loop.total_batch_idx + 1))
        write(self, t, best)

    if resume:
        fit(tmp_path, every=1, accumulate_grad_batches=2, max_epochs=1)
    monkeypatch.setattr(Checkpoints, "_write", seen)
    fit(tmp_path, every=1, accumulate_grad_batches=2, resume=resume)
    assert saved
    assert all(batches == 2 * step for step, batches in saved)


def test_metrics_are_never_less_than_they_were(tmp_path, monkeypatch):
    """The file is there and whole at every moment in which a process could be killed."""
    before = MetricsFile(tmp_path)
    for step in range(5):
        before.log_metrics({"a": step}, step)
    resumed = MetricsFile(tmp_path)
    resumed.rewind(4)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            resumed.log_metrics({"a": 4}, 4)
    assert logged(tmp_path, "a") == [0, 1, 2, 3, 4]
    again = MetricsFile(tmp_path)
    again.rewind(4)
    again.log_metrics({"a": 4, "new": 1}, 4)
    assert logged(tmp_path, "a") == [0, 1, 2, 3, 4]
    assert logged(tmp_path, "new") == [1]


def test_the_journal_is_never_less_than_it_was(tmp_path, monkeypatch):
    journal = tmp_path / "wandb" / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"values": {}, "files": {}}\n' * 3)
    resumed = Wandb(tmp_path, "x", "p", None)
    resumed.rewind(2)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            resumed._start_journal()
    assert journal.read_text().count("\n") == 3


def test_pictures_that_cannot_be_written_do_not_end_a_run(monkeypatch, segfolio):
    warned: list[str] = []
    monkeypatch.setattr("segfolio.viz.callback.rank_zero_warn", warned.append)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segfolio.viz.callback.write_atomically", full)
    arguments = ("--data.batch_size=2", "--trainer.max_steps=2", "--trainer.val_check_interval=1", "--output=run")
    assert segfolio("fit", *SMALL, *arguments) == 0
    assert any("pictures cannot be written (No space left on device); the run goes on" in said for said in warned)
    assert Path("run/checkpoints/last.ckpt").exists()


def test_no_picture_is_written_before_the_checkpoint_of_its_validation(monkeypatch, segfolio):
    """Whatever writes it: a picture is the last to take room of a disk."""
    written: list[tuple[str, bool]] = []
    image, write = wandb.Image.__init__, write_atomically

    def named() -> bool:
        return all(Path("run/checkpoints", name).exists() for name in ("last.ckpt", "best.ckpt"))

    def of_wandb(*args: Any, **kwargs: Any) -> None:
        written.append(("media", named()))
        image(*args, **kwargs)

    def of_ours(path: Path, data: bytes) -> None:
        written.append((path.suffix, named()))
        write(path, data)

    monkeypatch.setattr(wandb.Image, "__init__", of_wandb)
    monkeypatch.setattr("segfolio.viz.callback.write_atomically", of_ours)
    steps = ("--trainer.max_steps=1", "--trainer.val_check_interval=1")
    assert segfolio("fit", *SMALL, "--data.batch_size=2", *steps, "--output=run") == 0
    assert {kind for kind, _ in written} == {".png", "media"}
    assert all(after for _, after in written)


def test_wandb_gets_the_pictures_of_a_run_that_is_cut_before_they_are_written(tmp_path):
    """The checkpoint counts them; the journal has them, in their place among the entries."""
    logger = Wandb(tmp_path, "x", "p", None)
    file = tmp_path / "a.png"
    logger.log_metrics({"a": 1}, 0)
    logger.announce_pictures({"val/a": file}, 0)
    assert logger.calls == 2
    logger.experiment.finish()  # killed here
    write_image(file, np.zeros((2, 2, 3), np.uint8))
    again = Wandb(tmp_path, "x", "p", None)
    again.rewind(2)
    again.log_metrics({"a": 2}, 1)
    assert again.calls == 3
    assert "val/a" in dict(again.experiment.summary)
    again.experiment.finish()
