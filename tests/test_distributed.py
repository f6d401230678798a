"""Two processes on the CPU (gloo) evaluate and train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

ARGUMENTS = [
    *(
        "-c",
        str(REPOSITORY / "experiments/unet/shapes_small.yaml"),
        "--data.num_workers=0",
        "--trainer.accelerator=cpu",
    ),
    *("--data.dataset.init_args.size=[48, 64]", "--data.dataset.init_args.test=7", "--data.dataset.init_args.val=5"),
    *("--model.init_args.architecture.init_args.width=4", "--data.eval_batch_size=1"),
    "--trainer.enable_progress_bar=false",
]


def command(folder: Path, *arguments: str) -> str:
    """Run `segfolio` as a process of its own, as a multi-process run must be; returns what it printed."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "segfolio.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two processes, with a validation on an odd number of images."""
    folder = tmp_path_factory.mktemp("distributed")
    command(
        folder, "fit", *ARGUMENTS, "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=2",
        "--trainer.max_steps=4", "--trainer.val_check_interval=4", "--output=run",
    )  # fmt: skip
    return folder


def test_two_processes_write_one_run(trained):
    assert {p.name for p in (trained / "run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert not (trained / "runs").exists()
    assert len(list((trained / "run/wandb").glob("offline-run-*"))) == 1
    pictures = list((trained / "run/pictures/val").rglob("*.png"))
    assert pictures


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_metrics_of_several_processes_are_those_of_one(trained, devices):
    """Seven images, every figure to the last bit: none is counted twice, none is lost."""
    checkpoint = "--ckpt_path=run/checkpoints/last.ckpt"
    if not (trained / "one/figures.json").exists():
        command(trained, "test", checkpoint, "--trainer.devices=1", "--trainer.strategy=auto", "--output=one")
    command(trained, "test", checkpoint, f"--trainer.devices={devices}", f"--output=of{devices}")
    one, several = (json.loads((trained / f / "figures.json").read_text()) for f in ("one", f"of{devices}"))
    assert one.pop("test/evaluation_seconds") > 0
    assert several.pop("test/evaluation_seconds") > 0
    assert one == several
    assert 0 < one["test/mIoU"] < 1


def test_processes_started_by_torchrun_share_one_run(tmp_path):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "segfolio.cli"]
    steps = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=1", "--data.batch_size=2"]
    done = subprocess.run(
        [*launcher, "fit", *ARGUMENTS, *steps, "--trainer.limit_val_batches=0"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "runs/unet/shapes_small").iterdir()) == ["0", "latest"]
    assert (tmp_path / "runs/unet/shapes_small/0/checkpoints/last.ckpt").is_file()
