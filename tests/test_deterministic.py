"""`--trainer.deterministic`, from the command line to torch's refusal."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from segfolio.families import PerPixel
from tests.test_cli import SMALL

ARGUMENTS = ("fit", *SMALL, "--data.batch_size=2", "--trainer.max_steps=3", "--trainer.limit_val_batches=0")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def refused_operation(monkeypatch):
    """A step with an operation that has no deterministic form on any device."""
    compute_losses = PerPixel.compute_losses

    def with_put(self: Any, batch: Any) -> Any:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        return compute_losses(self, batch)

    monkeypatch.setattr(PerPixel, "compute_losses", with_put)


def test_the_same_seed_gives_the_same_weights(segfolio):
    weights = []
    for output in ("one", "two"):
        assert segfolio(*ARGUMENTS, "--trainer.deterministic=true", f"--output={output}") == 0
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # without it torch refuses matrix products on CUDA
        weights.append(torch.load(Path(output, "checkpoints/last.ckpt"), weights_only=True)["state_dict"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_refused_operation_is_named_in_a_sentence(segfolio, capsys, refused_operation):
    assert segfolio(*ARGUMENTS, "--trainer.deterministic=true") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("segfolio: torch has no deterministic form of put_ ")
    assert "--trainer.deterministic=warn" in message


def test_warn_goes_on(segfolio, refused_operation):
    assert segfolio(*ARGUMENTS, "--trainer.deterministic=warn") == 0
