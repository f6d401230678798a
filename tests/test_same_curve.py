"""However a global batch is divided over processes, accumulated passes and workers: same data, same curve."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from tests.conftest import REPOSITORY
from tests.seen import seen
from tests.test_distributed import command

CONFIG = {
    "seed_everything": 3,
    "model": {
        "class_path": "segfolio.families.PerPixel",
        "init_args": {
            "architecture": {
                "class_path": "segfolio.architectures.encoder_decoder.unet.UNet",
                "init_args": {"width": 8, "depth": 2, "padding": "same", "batch_norm": False, "dropout": 0.0},
            },
            "losses": {"ce": {"class_path": "segfolio.losses.CrossEntropy"}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}},
        },
    },
    "data": {
        "dataset": {
            "class_path": "segfolio.data.datasets.Shapes",
            "init_args": {"size": [48, 64], "train": 18, "val": 4},
        },
        "train_transforms": [
            {  # no scale below 1: padding is ignored, and the mean over fewer pixels is of its part alone
                "class_path": "segfolio.data.transforms.RandomWindow",
                "init_args": {"size": [48, 48], "scale": [1.0, 1.5], "hflip": 0.5},
            },
            {"class_path": "segfolio.data.transforms.ColorJitter", "init_args": {"contrast": 0.4, "hue": 0.1}},
        ],
        "num_workers": 0,
    },
    "trainer": {
        "max_steps": 12,  # three epochs of 18 images in batches of 4; two are left over in each
        "max_epochs": -1,
        "val_check_interval": 12,
        "check_val_every_n_epoch": None,
        "logger": False,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "tests.seen.Seen"}],
    },
}
ONE = ("--data.batch_size=4",)
ACCUMULATED = (*ONE, "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=24")
TWO = (*ONE, "--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "same.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def outcome(run: str) -> tuple[dict[str, Tensor], float]:
    """Weights after the last step, and the mIoU then."""
    checkpoint = torch.load(Path(run, "checkpoints/last.ckpt"), weights_only=True)
    return checkpoint["state_dict"], checkpoint["callbacks"]["Checkpoints"]["best"]


def test_one_process_two_processes_and_accumulation(segfolio, config, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert segfolio("fit", "-c", config, "--output=one", *ONE) == 0
    assert segfolio("fit", "-c", config, "--output=accumulated", *ACCUMULATED) == 0
    command(Path(), "fit", "-c", str(config), "--output=two", *TWO)
    samples, losses = seen(Path("one"))
    assert len({sample for step in samples for sample in step}) == 12 * 4  # no augmentation comes twice
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()
    weights, mean_iou = outcome("one")
    for other in ("accumulated", "two"):
        samples_of_other, losses_of_other = seen(Path(other))
        assert samples_of_other == samples
        torch.testing.assert_close(losses_of_other, losses, rtol=1e-4, atol=1e-5)
        weights_of_other, mean_iou_of_other = outcome(other)
        torch.testing.assert_close(weights_of_other, weights, rtol=1e-4, atol=1e-5)
        assert mean_iou_of_other == pytest.approx(mean_iou, abs=1e-3)


def test_workers_change_nothing_to_the_bit(segfolio, config):
    for workers in (0, 1, 2):
        assert segfolio("fit", "-c", config, f"--output={workers}", f"--data.num_workers={workers}", *ONE) == 0
    (samples, losses), (weights, _) = seen(Path("0")), outcome("0")
    for workers in ("1", "2"):
        samples_of_other, losses_of_other = seen(Path(workers))
        assert samples_of_other == samples
        assert torch.equal(losses_of_other, losses)
        assert all(torch.equal(value, weights[name]) for name, value in outcome(workers)[0].items())
