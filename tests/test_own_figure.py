"""A user's own figure, of which less is better: from the metric to the ledger."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from segfolio.ledger.record import Record, recipe_hash
from segfolio.ledger.results import Results, finished_seed
from tests.clicks import Clicks
from tests.conftest import REPOSITORY


@pytest.fixture
def experiment(tmp_path) -> Path:
    content = yaml.safe_load((REPOSITORY / "experiments/unet/shapes_small.yaml").read_text())
    content["paper"] |= {"expected": {"test/NoC95": 2.3, "test/mIoU": 0.9}, "tolerance": {"test/NoC95": 0.25}}
    content["model"]["init_args"] |= {"metrics": [{"class_path": "tests.clicks.Clicks"}]}
    content["model"]["init_args"]["architecture"]["init_args"] |= {"width": 4, "depth": 2}
    sizes = {"size": [48, 64], "train": 4, "val": 2, "test": 4}
    content["data"] |= {"batch_size": 2, "num_workers": 0, "dataset": content["data"]["dataset"] | {"init_args": sizes}}
    content["trainer"] |= {"max_steps": 1, "val_check_interval": 1, "accelerator": "cpu", "logger": False}
    path = tmp_path / "experiments/net/row.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_it_is_compared_with_the_paper_and_stands_in_the_ledger(experiment, segfolio, capsys):
    assert segfolio("fit", "-c", experiment, "--output=run") == 0
    capsys.readouterr()
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0
    of_classes, whole = capsys.readouterr().out.split("run/config: ")
    assert "test/NoC95 (clicks) ↓           2.30  2.50       +0.20  within (± 0.25)" in whole
    assert "NoC95 (clicks) ↓" in of_classes
    assert Record.read(Path("run/test")).figures == [asdict(figure) for figure in Clicks.figures]

    seed = finished_seed(Path("run"), experiment.parent)
    recipe = recipe_hash(yaml.safe_load(experiment.read_text()))
    Results("net/row", recipe, (), {0: seed}).write(experiment.with_suffix(".results.json"))
    assert segfolio("results", "--state=within") == 0
    assert "NoC95 (clicks) ↓   2.30      2.50 (1)       +0.20  within" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model.init_args.metrics=[]",), "names 'test/NoC95', whose unit and direction no metric of this model"),
        (("--paper.tolerance=0.1",), "paper.tolerance lacks test/NoC95; of a figure in clicks it is given by log key"),
        (("--paper.expected={test/PQ: 0.5}", "--paper.tolerance=0.1"), "names 'test/PQ', whose unit and direction no"),
    ],
)
def test_a_claim_that_cannot_be_compared_is_refused_before_a_run_is_made(experiment, segfolio, capsys, arguments, says):
    assert segfolio("fit", "-c", experiment, *arguments) == 2
    assert says in capsys.readouterr().err
    assert not Path("runs").exists()
