"""A run that is killed by SIGKILL and resumed ends as the one that was not: weights, optimiser, history."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import REPOSITORY
from tests.wandb_file import history

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "class_path": "segfolio.families.PerPixel",
        "init_args": {
            "architecture": {
                "class_path": "segfolio.architectures.encoder_decoder.unet.UNet",
                "init_args": {"width": 4, "depth": 2, "padding": "same", "batch_norm": True, "dropout": 0.5},
            },
            "losses": {"ce": {"class_path": "segfolio.losses.CrossEntropy"}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            "scheduler": {"class_path": "torch.optim.lr_scheduler.PolynomialLR", "init_args": {"total_iters": 12}},
        },
    },
    "data": {
        "dataset": {
            "class_path": "segfolio.data.datasets.Shapes",
            "init_args": {"size": [48, 64], "train": 9, "val": 3, "test": 3},
        },
        "batch_size": 2,
        "num_workers": 0,
        "train_transforms": [
            {
                "class_path": "segfolio.data.transforms.RandomWindow",
                "init_args": {"size": [48, 64], "scale": [0.5, 2.0], "hflip": 0.5},
            },
            {"class_path": "segfolio.data.transforms.ColorJitter", "init_args": {"brightness": 0.4, "hue": 0.1}},
        ],
    },
    "trainer": {
        "max_steps": 10,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "val_check_interval": 6,
        "check_val_every_n_epoch": None,
        "enable_progress_bar": False,
        "callbacks": [
            {"class_path": "segfolio.callbacks.checkpoints.Checkpoints", "init_args": {"every_n_steps": 1}},
        ],
    },
}
CLOCKS = {"train/data_wait", "train/samples_per_second", "val/evaluation_seconds", "_runtime", "_timestamp"}
ALONE: list[str] = []
TOGETHER = [
    "--trainer.devices=2",
    "--trainer.strategy=ddp",
    "--trainer.accumulate_grad_batches=2",
    "--data.batch_size=4",
]


def fit(folder: Path, *arguments: str) -> int:
    # not W&B's service of the process that tests, to which a killed run would go on living
    environment = {k: v for k, v in os.environ.items() if "WANDB_SERVICE" not in k}
    environment |= {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "segfolio.cli", "fit", "-c", "small.yaml", *arguments]
    log = folder / "log.txt"  # not a pipe, which the children of a killed process would hold open
    with log.open("w") as said:
        status = subprocess.run(command, cwd=folder, env=environment, stdout=said, stderr=said, timeout=300).returncode
    assert status <= 0, log.read_text()
    return status


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        kept = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]
    return [row for row in kept if any(v for k, v in row.items() if k not in ("step", "epoch"))]


def told(run: Path) -> list[tuple[int, dict[str, str]]]:
    """W&B's scalars; a panel's entry names the file that it was copied to, which differs."""
    entries = history(run / "wandb")
    return [(n, {k: v for k, v in entry.items() if k not in CLOCKS and "/pictures/" not in k and "/masks/" not in k})
            for n, entry in entries]  # fmt: skip


def tensors(nested: Any) -> list[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        return [nested]
    values = nested.values() if isinstance(nested, dict) else nested if isinstance(nested, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize(
    ("processes", "kills"),
    [pytest.param(ALONE, (3, 7), id="one"), pytest.param(TOGETHER, (3,), id="two", marks=pytest.mark.slow)],
)
def test_killed_and_resumed_is_as_if_nothing_had_happened(folder, processes, kills):
    name = "one" if processes is ALONE else "two"
    whole, broken = folder / f"{name}_whole", folder / f"{name}_broken"
    assert fit(folder, *processes, f"--output={whole}") == 0
    killer = ["--trainer.callbacks+=tests.killer.KillAt"]
    resumed: list[str] = []
    for step in kills:  # the same run is killed more than once
        assert fit(folder, *processes, *resumed, *killer, f"--trainer.callbacks.step={step}", f"--output={broken}") < 0
        resumed = ["--ckpt_path=last"]
    (broken / "checkpoints/unfinished.ckpt").write_bytes(b"half of a checkpoint")
    assert fit(folder, *processes, *resumed, f"--output={broken}") == 0

    ends = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, broken)]
    assert [end["global_step"] for end in ends] == [10, 10]
    for part in ("state_dict", "optimizer_states"):
        ours, theirs = (tensors(end[part]) for end in ends)
        assert len(ours) > 10
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), part
    assert ends[0]["lr_schedulers"] == ends[1]["lr_schedulers"]
    assert rows(whole) == rows(broken)
    assert len(rows(whole)) > 20
    assert told(whole) == told(broken)
    assert [n for n, _ in told(whole)] == list(range(len(told(whole))))
    assert len(list((broken / "wandb").glob("offline-run-*"))) == 1


def test_a_training_that_ended_with_an_epoch_goes_on_with_the_next(segfolio, folder):
    """Four steps are an epoch of nine images."""
    every_epoch = ["--trainer.val_check_interval=null", "--trainer.check_val_every_n_epoch=1", "--trainer.logger=false"]
    for arguments in (
        ("--output=six", "--trainer.max_steps=6"),
        ("--output=four", "--trainer.max_steps=4"),
        ("--output=four", "--trainer.max_steps=6", "--ckpt_path=last"),
    ):
        assert segfolio("fit", "-c", folder / "small.yaml", *every_epoch, *arguments) == 0
    ends = [torch.load(Path(run, "checkpoints/last.ckpt"), weights_only=True) for run in ("six", "four")]
    six, four = (tensors(end["state_dict"]) for end in ends)
    assert all(torch.equal(a, b) for a, b in zip(six, four, strict=True))


def test_validation_inside_an_accumulated_step_is_refused(segfolio, folder, capsys):
    arguments = ("--data.batch_size=4", "--trainer.accumulate_grad_batches=4", "--output=x", "--data.num_workers=0")
    assert segfolio("fit", "-c", folder / "small.yaml", *arguments) == 2
    assert "validation after every 6 batches falls between two of the 4" in capsys.readouterr().err
