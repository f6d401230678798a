"""Each family on CUDA: all its loops, both mixed precisions, and a run that goes on from its checkpoint."""

from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.families.whole_runs import WHOLE_RUNS, WholeRun

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]

GPU = {"accelerator": "gpu", "devices": 1}
EXPERIMENTS = ("unet/shapes_small", "maskformer/shapes_panoptic", "mask_rcnn/shapes_small")
every_run = pytest.mark.parametrize("run", WHOLE_RUNS, ids=lambda run: run.name)


@every_run
def test_it_finds_the_figures_that_it_finds_on_the_host(run: WholeRun, tmp_path: Path) -> None:
    """By their names; their values differ by rounding after two steps of training."""
    found = run(tmp_path / "gpu", **GPU)
    assert found.keys() == run(tmp_path / "host", accelerator="cpu").keys()
    assert (
        0
        <= next(found[key] for name in ("AP", "mIoU", "mIoU_1click", "J_and_F") if (key := f"test/{name}") in found)
        <= 1
    )


@every_run
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_it_trains_in_mixed_precision(run: WholeRun, precision: str, tmp_path: Path) -> None:
    assert run.losses(tmp_path, precision=precision, **GPU)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_goes_on_from_its_checkpoint(experiment: str, segfolio, tmp_path: Path) -> None:
    """Images, schedule and random numbers are those of the whole run: weights are equal but for rounding."""
    small = [
        *("fit", "-c", REPOSITORY / f"experiments/{experiment}.yaml", "--data.num_workers=0"),
        *("--trainer.accelerator=gpu", "--trainer.devices=1", "--trainer.deterministic=warn", "--trainer.max_steps=6"),
        *("--trainer.val_check_interval=3", "--trainer.limit_val_batches=1", "--data.eval_batch_size=1"),
    ]
    assert segfolio(*small, "--output=whole") == 0
    ending = ("--trainer.callbacks+=tests.killer.RaiseAt", "--trainer.callbacks.step=4")
    with pytest.raises(RuntimeError, match="ended at step 4"):
        segfolio(*small, *ending, "--output=broken")
    assert segfolio(*small, "--output=broken", "--ckpt_path=last") == 0
    whole, broken = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "broken"))
    assert whole["global_step"] == broken["global_step"] == 6
    assert whole["lr_schedulers"] == broken["lr_schedulers"]
    for name, weight in whole["state_dict"].items():
        torch.testing.assert_close(broken["state_dict"][name], weight, rtol=1e-2, atol=1e-3)
