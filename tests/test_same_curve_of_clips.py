"""Clips, too: however a batch is divided, and wherever a run is killed, the same objects are followed alike."""

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.clip_prompts import ClipPrompts
from tests.conftest import REPOSITORY
from tests.families.test_video_training import SMALL
from tests.seen import seen
from tests.test_distributed import command

SEED, STEPS, FRAMES = 7, 4, 3
PROMPTS = {"max_objects": 2, "clicks": 1}
CONFIG: dict[str, Any] = {
    "seed_everything": SEED,
    "model": {
        "class_path": "segfolio.families.Video",
        "init_args": {
            "architecture": {
                "class_path": f"{SAM2.__module__}.SAM2",
                "init_args": {
                    name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()
                },
            },
            "prompts": {"class_path": "segfolio.data.clip_prompts.ClipPrompts", "init_args": PROMPTS},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.005, "momentum": 0.9}},
        },
    },
    "data": {
        "dataset": {
            "class_path": "segfolio.data.datasets.MovingShapes",
            "init_args": {"size": [64, 64], "frames": 8, "train": 10, "val": 2},
        },
        "clip_frames": {
            "class_path": "segfolio.data.clips.ClipFrames",
            "init_args": {"frames": FRAMES, "strides": [1, 2], "reverse": 0.5},
        },
        "train_transforms": [
            {
                "class_path": "segfolio.data.transforms.RandomWindow",
                "init_args": {"size": [48, 48], "scale": [0.8, 1.5], "hflip": 0.5},
            },
        ],
        **{"batch_size": 4, "num_workers": 0},
    },
    "trainer": {
        **{"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0, "accelerator": "cpu", "logger": False},
        **{"enable_progress_bar": False, "callbacks": [{"class_path": "tests.seen.Seen"}]},
    },
}
ACCUMULATED = ("--trainer.accumulate_grad_batches=2",)
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.fixture(autouse=True)
def _tests_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'src'}")


def config(folder: Path, **network: Any) -> str:
    content = copy.deepcopy(CONFIG)
    content["model"]["init_args"]["architecture"]["init_args"] |= network
    (path := folder / "clips.yaml").write_text(yaml.safe_dump(content))
    return str(path)


def weights(run: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(run, "checkpoints/last.ckpt"), weights_only=True)["state_dict"]


def test_the_steps_below_are_of_masks_and_of_what_is_corrected() -> None:
    plans = [ClipPrompts(**PROMPTS).plan(SEED, step, FRAMES) for step in range(STEPS)]
    assert {"mask"} < {kind for plan in plans for kind in plan.first.values()}
    assert {len(plan.first) for plan in plans} == {1, 2}


def test_one_process_two_processes_and_accumulation(segfolio, tmp_path):
    given = config(tmp_path)
    assert segfolio("fit", "-c", given, "--output=one") == 0
    assert segfolio("fit", "-c", given, "--output=accumulated", *ACCUMULATED) == 0
    command(Path(), "fit", "-c", given, "--output=two", *TWO)
    samples, losses = seen(Path("one"))
    expected = weights("one")
    assert len({image_id.split("/")[0] for step in samples for image_id, *_ in step}) > 8
    for other in ("accumulated", "two"):
        samples_of_other, losses_of_other = seen(Path(other))
        assert samples_of_other == samples
        torch.testing.assert_close(losses_of_other, losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights(other), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [(), TWO], ids=["one", "two"])
def test_a_run_that_was_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path, monkeypatch, processes):
    """With dropout in what attends to memory."""
    monkeypatch.chdir(tmp_path)
    given = config(tmp_path, memory_dropout=0.1)
    kept = ("--trainer.callbacks+=segfolio.callbacks.checkpoints.Checkpoints", "--trainer.callbacks.every_n_steps=1")
    command(Path(), "fit", "-c", given, *processes, *kept, "--output=whole")
    killed = subprocess.run(
        [
            *(sys.executable, "-m", "segfolio.cli", "fit", "-c", given, *processes, *kept, "--output=broken"),
            *("--trainer.callbacks+=tests.killer.KillAt", f"--trainer.callbacks.step={STEPS // 2}"),
        ],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    command(Path(), "fit", "-c", given, *processes, *kept, "--output=broken", "--ckpt_path=last")
    whole, broken = weights("whole"), weights("broken")
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    assert torch.equal(seen(Path("whole"))[1][-1], seen(Path("broken"))[1][-1])
