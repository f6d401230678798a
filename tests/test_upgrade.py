"""Runs of an earlier version go on: their configs are read in today's keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.ledger.record import Record, recipe_hash, recipes_of_run
from segfolio.resolved import resolved
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
    for name in ("frozen", "lr_full_blocks", "biases_apart"):  # which it did not have
        del rules[name]
    del arguments["lora"]
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
    assert trained.config != tested.config
    assert tested.config in recipes_of_run(Path("run"), trained)

    assert segfolio("fit", "--ckpt_path", LAST, f"{steps}=2") == 0
    assert segfolio("fit", *given, "--output=run", "--ckpt_path=last", f"{steps}=3") == 0
    resumed = torch.load(LAST, weights_only=True)
    assert resumed["global_step"] == 3
    assert resumed["run"]["model"]["init_args"]["parameters"]["bias_lr_factor"] == 2


def test_an_argument_that_is_younger_than_a_run_has_its_default_there(segfolio, capsys) -> None:
    then = json.loads((REPOSITORY / "tests/run_of_0_1.json").read_text())  # as 0.1 kept it, and written in its keys
    Path("old.yaml").write_text(yaml.safe_dump({part: then[part] for part in ("model", "data", "trainer")}))
    assert segfolio("fit", "-c", "old.yaml", "--output=run") == 0
    Path("run/config.yaml").write_text(Path("old.yaml").read_text())
    checkpoint = torch.load(LAST, weights_only=True)
    assert "label_offset" in checkpoint["run"]["model"]["init_args"]

    asked = ("fit", "--ckpt_path=run", "--trainer.max_steps=3")
    changed = {**then, "data": {**then["data"], "pad_batches": True}}
    torch.save({**checkpoint, "run": changed}, LAST)
    assert segfolio(*asked) == 2
    assert "exactly: data.pad_batches was True and is False; restore it" in capsys.readouterr().err
    torch.save({**checkpoint, "run": then}, LAST)
    assert segfolio(*asked) == 0
    assert torch.load(LAST, weights_only=True)["global_step"] == 3


@pytest.mark.slow
def test_the_ledger_knows_a_run_that_is_older_than_a_default(segfolio) -> None:
    then = json.loads((REPOSITORY / "tests/run_of_0_1.json").read_text())
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump({part: then[part] for part in ("model", "data", "trainer")}))
    todays = resolved(Path("run/config.yaml"))
    recorded = Record("net/row", recipe_hash(then), 0)
    assert recipe_hash(todays) in recipes_of_run(Path("run"), recorded)
    todays["model"]["init_args"]["label_stride"] = 2
    assert recipe_hash(todays) not in recipes_of_run(Path("run"), recorded)
