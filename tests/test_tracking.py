import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from segfolio import tracking
from segfolio.tracking import DataWait, ProgressBar, build_loggers


class Tiny(LightningModule):
    main_metric = "mIoU"

    def __init__(self, step: Callable[[], Any] = int, validation: Callable[[], Any] = int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.step, self.validation = step, validation

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.step()
        self.log("train/loss", self.weight.detach())
        return self.weight**2

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validation()
        self.log("val/mIoU", 0.5 + self.current_epoch / 10, batch_size=len(batch))

    test_step = validation_step

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return batch

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


def loader(fetch: Callable[[], Any] = int) -> DataLoader[Any]:
    def collate(items: list[int]) -> Tensor:
        fetch()
        return torch.tensor(items)

    return DataLoader(range(8), 2, collate_fn=collate)  # type: ignore[arg-type]


def trainer(run: Path, *callbacks: Callback, **kwargs: Any) -> Trainer:
    bar = any(isinstance(c, ProgressBar) for c in callbacks)
    quiet = {"enable_progress_bar": bar, "enable_model_summary": False, "enable_checkpointing": False}
    logger = build_loggers(run, "tiny")[:1]  # the file alone
    defaults = {"max_epochs": 2, "log_every_n_steps": 2, "accelerator": "cpu", "default_root_dir": run}
    return Trainer(callbacks=list(callbacks), logger=logger, **{**quiet, **defaults, **kwargs})


def logged(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


# Loggers


def test_metrics_are_in_the_run_folder_and_a_second_run_there_goes_on(tmp_path: Path) -> None:
    for metrics in ({"a": 1.0}, {"a": 2.0, "class, with comma": 3.0}, {"a": 4.0}):
        logger = build_loggers(tmp_path, "x")[0]
        logger.log_metrics(metrics, step=0)
        logger.save()
    assert logged(tmp_path, "a") == [1, 2, 4]
    assert logged(tmp_path, "class, with comma") == [3]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_each_run_folder_is_a_run_of_its_own_in_wandb(tmp_path: Path) -> None:
    import wandb

    try:
        runs = []
        for seed in (0, 1):
            logger = build_loggers(tmp_path / str(seed), "segnet/camvid", {"seed": seed})[1]
            runs.append(logger.experiment)  # type: ignore[attr-defined]
            logger.log_metrics({"val/mIoU": 0.5}, step=seed)
        assert runs[0].id != runs[1].id
        assert [run.config["seed"] for run in runs] == [0, 1]
        assert [Path(run.dir).parents[2].name for run in runs] == ["0", "1"]
        assert runs[1].name == "segnet/camvid"
        assert runs[1].project == "segfolio"
    finally:
        wandb.finish()


def test_wandb_without_a_key_or_out_of_reach_is_offline_and_does_not_ask(tmp_path: Path) -> None:
    """In a process of its own that has no settings of W&B and whose standard input is closed."""
    code = f"""
import os, wandb, segfolio.tracking as tracking
from pathlib import Path
tracking.INIT_TIMEOUT = 2.0
for folder, key in (("no_key", {{}}), ("out_of_reach", {{"WANDB_API_KEY": {"0" * 40!r}}})):
    os.environ.update(key, WANDB_BASE_URL="http://127.0.0.1:9")
    wandb.finish()
    wandb.teardown()  # reads the environment again
    logger = tracking.build_loggers(Path(folder), "x")[1]
    logger.log_metrics({{"a": 1.0}}, step=0)
    assert logger.experiment.offline
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {
        "HOME": str(tmp_path),
        "NETRC": "none",
        "PYTHONPATH": str(Path(tracking.__file__).parents[1]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("UserWarning: W&B is out of reach (") == 1
    assert len(list(tmp_path.glob("no_key/wandb/offline-run-*/run-*.wandb"))) == 1
    assert len(list(tmp_path.glob("out_of_reach/wandb/offline-run-*/run-*.wandb"))) == 1


# Data wait, on a clock that only the test moves


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """`clock(seconds)` is a function that takes so long."""
    now = [0.0]

    def takes(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    monkeypatch.setattr(tracking, "_stamp", lambda device: now[0])
    return takes


def test_share_of_waiting_and_samples_per_second(tmp_path: Path, clock: Callable[..., Any]) -> None:
    """3 s for each batch of two, 1 s for each step, and validations of an hour that do not count."""
    trainer(tmp_path, DataWait()).fit(Tiny(clock(1), clock(3600)), loader(clock(3)), loader())
    assert logged(tmp_path, "train/data_wait") == [0.75] * 4
    assert logged(tmp_path, "train/samples_per_second") == [0.5] * 4


def test_rest_of_an_epoch_is_logged_at_its_end(tmp_path: Path, clock: Callable[..., Any]) -> None:
    trainer(tmp_path, DataWait(), log_every_n_steps=3, max_epochs=1).fit(Tiny(clock(1)), loader(clock(1)))
    assert logged(tmp_path, "train/data_wait") == [0.5, 0.5]
    assert logged(tmp_path, "step") == [2, 3]


def test_first_fetch_after_a_validation_is_left_out(tmp_path: Path, clock: Callable[..., Any]) -> None:
    """Of the third and fourth batch only the fourth one's fetch counts: 3 s of 5 s."""
    t = trainer(tmp_path, DataWait(), max_epochs=1, val_check_interval=2)
    t.fit(Tiny(clock(1), clock(9)), loader(clock(3)), loader())
    assert logged(tmp_path, "train/data_wait") == pytest.approx([0.75, 0.6])
    assert logged(tmp_path, "train/samples_per_second") == pytest.approx([0.5, 0.8])


def test_accumulated_batches_are_logged_once_per_step(tmp_path: Path, clock: Callable[..., Any]) -> None:
    t = trainer(tmp_path, DataWait(), max_epochs=1, accumulate_grad_batches=2, log_every_n_steps=1)
    t.fit(Tiny(clock(1)), loader(clock(3)))
    assert logged(tmp_path, "train/data_wait") == [0.75, 0.75]


@pytest.mark.parametrize(("fetch", "step", "starved"), [(0.05, 0.0, True), (0.0, 0.05, False)])
def test_share_on_the_real_clock(tmp_path: Path, fetch: float, step: float, starved: bool) -> None:
    t = trainer(tmp_path, DataWait(), log_every_n_steps=4)
    t.fit(Tiny(lambda: time.sleep(step)), loader(lambda: time.sleep(fetch)))
    assert (logged(tmp_path, "train/data_wait")[-1] > 0.5) == starved


# Progress


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"(sanity|epoch|training|test|prediction)", line)]


def test_log_file_gets_a_line_per_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t = trainer(tmp_path, DataWait(), ProgressBar(seconds=3600))
    t.fit(Tiny(), loader(), loader())
    t.test(Tiny(), loader(), verbose=False)
    t.predict(Tiny(), loader())
    said = capsys.readouterr().out
    assert "\r" not in said
    assert "\x1b" not in said
    assert "v_num" not in said
    figures = r"epoch {}/2  4/4  \S+<00:00  \S+it/s  loss 1.000  data wait \d+%  mIoU 0.{}00$"
    patterns = ["sanity check  1/2", "epoch 1/2  1/4"]  # the run has begun
    patterns += [figures.format(1, 5), figures.format(2, 6), "test  4/4", "prediction  4/4"]
    for line, pattern in zip(lines(said), patterns, strict=True):
        assert re.match(pattern, line), line


def test_progress_by_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(seconds=0)
    trainer(tmp_path, bar, max_epochs=-1, max_steps=6, num_sanity_val_steps=0).fit(Tiny(), loader())
    counts = [re.match(r"training  (\d)/6  .*loss 1.000", line) for line in lines(capsys.readouterr().out)]
    assert [m and m[1] for m in counts] == ["1", "2", "3", "4", "5", "6", "6"]


def test_terminal_line_is_redrawn_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 0.15 s, a line each 0.2 s: one of two is drawn, and each validation's stays."""
    now = [0.0]
    monkeypatch.setattr(tracking, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    trainer(tmp_path, ProgressBar()).fit(Tiny(lambda: now.append(now.pop() + 0.15)), loader(), loader())
    said = capsys.readouterr().out
    drawn = [
        re.sub(r"  .*  (\d/\d)  .*", r" \1", line) for line in re.findall(r"\r([^\r\n]*)\x1b\[K\n?", said)
    ]
    assert drawn == ["sanity check 1/2"] + [f"epoch {e}/2 {n}/4" for e, n in (
        (1, 1), (1, 3), (1, 4), (2, 2), (2, 4), (2, 4)
    )]  # fmt: skip
    assert [line.rpartition("\r")[2][:9] for line in said.split("\n")[-3:-1]] == ["epoch 1/2", "epoch 2/2"]
    assert max(len(line) for line in re.findall(r"\r([^\r\n]*)\x1b", said)) == 59


def test_other_processes_are_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(seconds=0)
    t = trainer(tmp_path, bar)
    bar.disable()
    t.fit(Tiny(), loader(), loader())
    bar.print("hello")
    assert lines(capsys.readouterr().out) == []
    bar.enable()
    bar.print("hello", 1)
    assert capsys.readouterr().out == "hello 1\n"
