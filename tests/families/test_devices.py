"""Each family trains, is tested and predicts where a tensor left in host memory is an error, as on CUDA.

`tests.devices` stands in for the GPU; `tests/gpu` does the same on a real one.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.data.datasets import Shapes
from segfolio.families import PerPixel
from segfolio.losses import CrossEntropy
from tests.devices import DEVICE, PretendedAccelerator, PretendedDevice
from tests.families.whole_runs import WHOLE_RUNS, WholeRun


def on_device() -> dict[str, Any]:
    return {"accelerator": PretendedAccelerator(), "strategy": SingleDeviceStrategy(device=DEVICE)}


@pytest.mark.parametrize("run", WHOLE_RUNS, ids=lambda run: run.name)
def test_a_family_computes_on_its_device(run: WholeRun, tmp_path: Path) -> None:
    """And finds what it finds on the host."""
    expected = run(tmp_path / "host", accelerator="cpu")
    with PretendedDevice():
        found = run(tmp_path / "device", **on_device())
    assert found == pytest.approx(expected, rel=0, abs=run.within, nan_ok=True)


class Forgetful(CrossEntropy):
    """Adds a constant that lies in host memory."""

    def forward(self, *given: Any) -> Any:
        return super().forward(*given) + torch.zeros(1)


def test_a_constant_in_host_memory_is_found(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    optimizer = partial(torch.optim.SGD, lr=0.1)
    run = WholeRun(
        "forgetful", lambda: PerPixel(Shapes.labels, partial(UNet, width=4), {"ce": Forgetful()}, optimizer=optimizer)
    )
    with PretendedDevice(), pytest.raises(RuntimeError, match="add got tensors on cuda:0 and on cpu"):
        run(tmp_path, **on_device())
