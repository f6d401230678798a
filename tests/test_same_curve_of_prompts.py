"""Prompts, too: however a batch is divided, and wherever a run is resumed, the same objects are asked for alike."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.data.prompt_sampling import PromptSampling
from tests.conftest import REPOSITORY
from tests.seen import seen
from tests.test_distributed import command

SEED, STEPS = 2, 4
CONFIG: dict[str, Any] = {
    "seed_everything": SEED,
    "model": {
        "class_path": "segfolio.families.Promptable",
        "init_args": {
            "architecture": {
                "class_path": "segfolio.architectures.promptable.sam.SAM",
                "init_args": {"width": 16, "depth": 1, "heads": 2, "global_blocks": [0], "image_size": 64},
            },
            "prompts": {"max_objects": 2, "clicks": 1, "pauses": 2},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02, "momentum": 0.9}},
        },
    },
    "data": {
        "dataset": {
            "class_path": "segfolio.data.datasets.Shapes",
            "init_args": {"size": [48, 64], "train": 12, "val": 2},
        },
        "train_transforms": [
            {
                "class_path": "segfolio.data.transforms.RandomWindow",
                "init_args": {"size": [40, 40], "scale": [0.8, 1.5], "hflip": 0.5},
            },
        ],
        **{"batch_size": 4, "num_workers": 0},
    },
    "trainer": {
        **{"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0, "accelerator": "cpu", "logger": False},
        **{"enable_progress_bar": False, "callbacks": [{"class_path": "tests.seen.Seen"}]},
    },
}
LORA = {"parts": ["image_encoder"], "targets": ["qkv", "proj"], "rank": 2, "dropout": 0.1}
ACCUMULATED = ("--trainer.accumulate_grad_batches=2",)
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


@pytest.fixture(autouse=True)
def _tests_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{REPOSITORY / 'src'}")


def config(folder: Path, **arguments: Any) -> str:
    content = copy.deepcopy(CONFIG)
    content["model"]["init_args"] |= arguments
    (path := folder / "prompts.yaml").write_text(yaml.safe_dump(content))
    return str(path)


def weights(run: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(run, "checkpoints/last.ckpt"), weights_only=True)["state_dict"]


def test_the_steps_below_are_of_points_and_of_boxes() -> None:
    assert {PromptSampling().first_prompt(SEED, step).kind for step in range(STEPS)} == {"point", "box"}


def test_one_process_two_processes_and_accumulation(segfolio, tmp_path):
    given = config(tmp_path)
    assert segfolio("fit", "-c", given, "--output=one") == 0
    assert segfolio("fit", "-c", given, "--output=accumulated", *ACCUMULATED) == 0
    command(Path(), "fit", "-c", given, "--output=two", *TWO)
    samples, losses = seen(Path("one"))
    expected = weights("one")
    assert losses[-1] < 0.8 * losses[0]
    for other in ("accumulated", "two"):
        samples_of_other, losses_of_other = seen(Path(other))
        assert samples_of_other == samples
        torch.testing.assert_close(losses_of_other, losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights(other), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("processes", [pytest.param((), id="one"), pytest.param(TWO, id="two", marks=pytest.mark.slow)])
def test_a_resumed_run_of_an_adapted_network_is_as_if_nothing_had_happened(segfolio, tmp_path, processes):
    given = config(tmp_path, lora=LORA)

    def fit(*arguments: str) -> None:
        if processes:
            command(Path(), "fit", "-c", given, *arguments, *processes)
        else:
            assert segfolio("fit", "-c", given, *arguments) == 0

    fit("--output=whole")
    fit("--output=broken", f"--trainer.max_steps={STEPS // 2}")
    fit("--output=broken", "--ckpt_path=last")
    assert torch.equal(seen(Path("whole"))[1], seen(Path("broken"))[1])
    whole, broken = weights("whole"), weights("broken")
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    assert any("lora_A" in name for name in whole)
