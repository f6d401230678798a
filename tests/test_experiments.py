"""Every experiment: its block is valid, its classes exist, it trains two steps and is tested on fake data."""

import importlib
import json
from pathlib import Path

import pytest
import yaml

from segfolio.ledger.paper import Paper
from segfolio.listing import architecture_classes, class_path
from tests.conftest import REPOSITORY

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*/*.yaml"))
CONTENT = {path: yaml.safe_load(path.read_text()) for path in EXPERIMENTS}
WITH_MODEL = [path for path in EXPERIMENTS if "model" in CONTENT[path]]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def resolve(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def architecture(path: Path) -> dict:
    return CONTENT[path]["model"]["init_args"]["architecture"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_the_paper_block_is_valid(path):
    paper = Paper(**CONTENT[path]["paper"])
    assert paper.row
    assert ("data" in CONTENT[path] and "model" in CONTENT[path]) or paper.status == "record-only"


@pytest.mark.parametrize("path", [p for p in EXPERIMENTS if "data" in CONTENT[p]], ids=named)
def test_it_opens_with_its_own_command(path):
    assert path.read_text().startswith(f"# segfolio fit -c experiments/{named(path)}.yaml")


def test_every_architecture_is_named_by_an_experiment():
    named_by_experiments = {architecture(path)["class_path"] for path in WITH_MODEL}
    files = {cls.__module__ for cls in architecture_classes()}
    assert files == {dotted.rpartition(".")[0] for dotted in named_by_experiments}
    assert named_by_experiments <= {class_path(cls) for cls in architecture_classes()}


def fake_data(path: Path, folder: Path) -> list[str]:
    """Arguments that put tiny data in the real layout in place of the experiment's own."""
    data = CONTENT[path].get("data")
    if data is None:  # record-only: the recipe is here, its dataset is not
        return ["--data.dataset=segfolio.data.datasets.Shapes", "--data.batch_size=1", "--data.num_workers=0"]
    name = resolve(data["dataset"]["class_path"]).__module__.rpartition(".")[2]
    if name != "shapes":
        importlib.import_module(f"tests.fake.{name}").write(folder)
    return [
        f"--data.root={folder}",
        "--data.num_workers=0",
        f"--data.batch_size={min(2, data['batch_size'])}",
    ]


@pytest.mark.parametrize("path", WITH_MODEL, ids=named)
def test_it_trains_two_steps_and_is_tested(path, segfolio, tmp_path, capsys):
    given = architecture(path)
    cls = resolve(given["class_path"])
    tiny = {**cls.tiny, **({"weights": None} if given.get("init_args", {}).get("weights") else {})}
    prefix = "--model.init_args.architecture.init_args"
    small = [f"{prefix}.{key}={json.dumps(value)}" for key, value in tiny.items()]
    status = segfolio(
        *("fit", "-c", path, *fake_data(path, tmp_path / "data"), *small, "--output=run"),
        *("--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.val_check_interval=null"),
        *(
            "--trainer.limit_val_batches=2",
            "--trainer.check_val_every_n_epoch=1",
            "--trainer.num_sanity_val_steps=0",
        ),
    )
    assert status == 0, capsys.readouterr().err
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt", "--trainer.limit_test_batches=2") == 0
    figures = json.loads(Path("run/test/figures.json").read_text())
    assert 0 <= figures["test/mIoU"] <= 1
