"""Runs of an earlier version go on: their configs are read in today's keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.ledger.record import Record, recipe_hash, recipe_of_run
from segfolio.upgrade import upgrade
from tests.conftest import REPOSITORY

LAST = Path("run/checkpoints/last.ckpt")
SLIDE = {"class_path": "segfolio.inference.sliding.Slide", "init_args": {"window": 16}}
MODEL = {
    "class_path": "segfolio.families.PerPixel",
    "init_args": {
        "label_stride": 8,
        "test_protocol": "whole",
        "also_test": {"slide": SLIDE},
        "bias_lr_factor": 2.0,
        "bias_weight_decay": False,
        "lr_factors": {"head": 10.0},
        "norm_weight_decay": True,
        "lr_decay_per_layer": None,
    },
}
TODAYS = {
    "label_stride": 8,
    "test": {"protocol": "whole", "also": {"slide": SLIDE}},
    "parameters": {
        "bias_lr_factor": 2.0,
        "bias_weight_decay": False,
        "lr_factors": {"head": 10.0},
        "norm_weight_decay": True,
        "lr_decay_per_layer": None,
    },
}


def test_arguments_of_a_family_move_below_their_new_keys() -> None:
    found = upgrade({"model": MODEL, "data": {"batch_size": 2}, "processes": 1})
    assert found == {"model": {**MODEL, "init_args": TODAYS}, "data": {"batch_size": 2}, "processes": 1}
    assert MODEL["init_args"]["bias_lr_factor"] == 2.0


def test_what_is_of_today_stays_as_it_is() -> None:
    config = {"model": {"class_path": "segfolio.families.Detection", "init_args": {"kinds": ["bbox"], **TODAYS}}}
    assert upgrade(config) == config
    for other in ({}, {"model": None}, {"model": "segfolio.families.PerPixel"}, {"paper": None, "trainer": {}}):
        assert upgrade(other) == other


@pytest.mark.parametrize("module", ["families", "families.region_based"])
def test_region_based_became_detection_without_the_defaults_of_a_test(module: str) -> None:
    arguments = {"kinds": ["segm"], "test_protocol": "whole", "also_test": None, "bias_lr_factor": 1.0}
    found = upgrade({"model": {"class_path": f"segfolio.{module}.RegionBased", "init_args": arguments}})
    init_args = {"kinds": ["segm"], "parameters": {"bias_lr_factor": 1.0}}
    assert found["model"] == {"class_path": "segfolio.families.Detection", "init_args": init_args}


def earlier(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run as the version before wrote it."""
    arguments = config["model"]["init_args"]
    test, rules = arguments.pop("test"), arguments.pop("parameters")
    arguments |= {"test_protocol": test["protocol"], "also_test": test["also"], **rules}
    return config


def test_a_run_of_an_earlier_version_is_resumed_tested_and_known_to_the_ledger(segfolio, tmp_path: Path) -> None:
    small = {
        "--trainer.accelerator": "cpu",
        "--trainer.limit_val_batches": 0,
        "--trainer.logger": "false",
        "--data.num_workers": 0,
        "--data.dataset.init_args": "{size: [32, 32], train: 4, val: 2, test: 2}",
        "--data.batch_size": 2,
        "--model.init_args.architecture.init_args.width": 2,
        "--model.init_args.test.also": "{slide: slide}",
        "--model.init_args.parameters.bias_lr_factor": 2,
    }
    experiment, steps = REPOSITORY / "experiments/unet/shapes_small.yaml", "--trainer.max_steps"
    given = ["-c", experiment, *(f"{key}={value}" for key, value in small.items())]
    assert segfolio("fit", *given, "--output=run", f"{steps}=1") == 0

    config = earlier(yaml.safe_load(Path("run/config.yaml").read_text()))
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    record = {**json.loads(Path("run/record.json").read_text()), "config": recipe_hash(config)}
    Path("run/record.json").write_text(json.dumps(record))
    checkpoint = torch.load(LAST, weights_only=True)
    torch.save({**checkpoint, "run": earlier(checkpoint["run"])}, LAST)

    assert segfolio("test", "--ckpt_path", LAST) == 0
    assert "test/slide/mIoU" in json.loads(Path("run/test/figures.json").read_text())
    trained, tested = Record.read(Path("run")), Record.read(Path("run/test"))
    assert trained.config != tested.config == recipe_of_run(Path("run"), trained)

    assert segfolio("fit", "--ckpt_path", LAST, f"{steps}=2") == 0
    assert segfolio("fit", *given, "--output=run", "--ckpt_path=last", f"{steps}=3") == 0
    resumed = torch.load(LAST, weights_only=True)
    assert resumed["global_step"] == 3
    assert resumed["run"]["model"]["init_args"]["parameters"]["bias_lr_factor"] == 2
