"""Names that are misspelt: the nearest is offered, for keys, classes and figures, in the command as in the YAML."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.errors import did_you_mean
from tests.test_cli import SMALL

FIT = ("fit", *SMALL, "--trainer.logger=false", "--trainer.max_steps=1", "--output=run")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("modl.init_args.lr", "model.init_args.lr"),
        ("data.bach_size", "data.batch_size"),
        ("trainr.max_step", "trainer.max_step"),
        ("max_steps", "trainer.max_steps"),
        ("foo.bar", None),
        ("data.size", None),
    ],
)
def test_of_a_dotted_word_the_part_that_is_wrong_is_replaced(word, near):
    known = ["model", "data.batch_size", "data.root", "trainer.max_steps"]
    assert did_you_mean(word, known) == (f"; did you mean {near!r}?" if near else "")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        (
            "--modl.init_args.optimizer=x",
            "there is no key 'modl.init_args.optimizer'; did you mean 'model.init_args.opt",
        ),
        ("--model.init_arg.optimizer=x", "did you mean 'init_args.optimizer'?"),
        ("--model.init_args.optimizer.init_arg.lr=1", "did you mean 'init_args.lr'?"),
        ("--model.optimzer.lr=1", "did you mean 'optimizer.lr'?"),
        ("--data.dataset.init_arg.size=3", "did you mean 'init_args.size'?"),
        ("--batch_size=3", "did you mean 'data.batch_size'?"),
        ("--model.init_args.optimizer=AdmW", "there is no class AdmW; did you mean 'torch.optim.AdamW'?"),
        ("--model.init_args.scheduler=PolyLr", "did you mean 'torch.optim.lr_scheduler.PolynomialLR'?"),
        ("--model.init_args.losses.ce=Crosentropy", "did you mean 'segfolio.losses.CrossEntropy'?"),
        (
            "--model.init_args.architecture=SegNett",
            "did you mean 'segfolio.architectures.encoder_decoder.segnet.SegNet'?",
        ),
        ("--data.dataset=Shaps", "did you mean 'segfolio.data.datasets.Shapes'?"),
        ("--trainer.callbacks+=EarlyStoping", "did you mean 'lightning.pytorch.callbacks.EarlyStopping'?"),
        ("--trainer.logger=CSVLoger", "did you mean 'lightning.pytorch.loggers.CSVLogger'?"),
        ("--data.test_split=tset", "data.test_split: Shapes has no split 'tset'; it has test, train, val"),
        ("--resume.allow=data", "--resume.allow is of a run that goes on"),
    ],
)
def test_in_the_command(segfolio, capsys, argument, says):
    assert segfolio(*FIT, argument) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("block", "wrong", "says"),
    [
        (
            "model",
            {"init_arg": 1},
            "model: a class has class_path and init_args, and no 'init_arg'; did you mean 'init_",
        ),
        ("model.init_args.optimizer", {"class_pth": "x"}, "model.init_args.optimizer: a class has class_path and init"),
        ("model.init_args.optimizer", {"class_path": "AdmW"}, "did you mean 'torch.optim.AdamW'?"),
        ("model.init_args.optimizer.init_args", {"lrr": 1}, "AdamW takes no 'lrr'; did you mean 'lr'?"),
        ("data", {"bach_size": 1}, "did you mean 'data.batch_size'?"),
        ("paper", {"tolerence": 1}, "did you mean 'tolerance'?"),
        ("trainer", {"callbacks": [{"class_path": "EarlyStoping"}]}, "did you mean 'lightning.pytorch.callbacks.Early"),
    ],
)
@pytest.mark.parametrize("further", [False, True], ids=["the config", "a further one"])
def test_in_a_yaml(segfolio, capsys, block, wrong, says, further):
    content = yaml.safe_load(Path(SMALL[1]).read_text())
    within: Any = content
    for key in block.split("."):
        within = within[key]
    within |= wrong
    Path("x.yaml").write_text(yaml.safe_dump(content))
    configs = (*SMALL[:2], "-c", "x.yaml") if further else ("-c", "x.yaml")
    assert segfolio("fit", *configs, *SMALL[2:]) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("", "there is no key 'modell'; did you mean 'model'?"),
        ("paper", "Paper takes no 'modell'"),
        ("model", "PerPixel takes no 'modell'"),
        ("model.init_args", "PerPixel takes no 'modell'"),
        ("model.init_args.architecture.init_args", "UNet takes no 'modell'"),
        ("model.init_args.losses.ce.init_args", "CrossEntropy takes no 'modell'"),
        ("model.init_args.optimizer.init_args", "AdamW takes no 'modell'"),
        ("model.init_args.parameters", "PerPixel takes no 'parameters.modell'"),
        ("data", "there is no key 'data.modell'"),
        ("data.dataset.init_args", "Shapes takes no 'modell'"),
        ("trainer", "there is no key 'trainer.modell'"),
    ],
)
@pytest.mark.parametrize("value", [{}, {"size": {}}, 1], ids=["nothing", "nothing below", "a number"])
def test_with_whatever_below_it(segfolio, capsys, block, says, value):
    """jsonargparse would drop a key with nothing below it."""
    Path("x.yaml").write_text(yaml.safe_dump(nested(block, {"modell": value})))
    assert segfolio("fit", *SMALL[:2], "-c", "x.yaml", *SMALL[2:], "--print_config") == 2
    found = capsys.readouterr().err.strip().splitlines()[-1]
    expected = says if value != {"size": {}} else says.replace("modell'", "modell.size'").partition(";")[0]
    assert expected in found


def nested(block: str, content: dict[str, Any]) -> dict[str, Any]:
    for key in reversed(block.split(".") if block else []):
        content = {key: content}
    return content


def test_nothing_below_a_key_that_there_is_says_nothing(segfolio, capsys):
    def resolved(*arguments: object) -> str:
        assert segfolio("fit", *SMALL, *arguments, "--print_config") == 0, capsys.readouterr().err
        return capsys.readouterr().out

    empty = ("model", "data", "trainer", "model.init_args", "data.dataset.init_args", "model.init_args.parameters")
    plain = resolved()
    for block in empty:
        Path("x.yaml").write_text(yaml.safe_dump(nested(block, {})))
        assert resolved("-c", "x.yaml") == plain


def test_in_help(segfolio, capsys):
    assert segfolio("fit", "--model.help=PerPixl") == 2
    assert capsys.readouterr().err.startswith("segfolio: there is no class PerPixl; did you mean 'segfolio.families")


def test_in_inspect(segfolio, capsys):
    for argument, says in (
        ("--data.rot=x", "'data.root'"),
        ("--data.dataset=Shaps", "'segfolio.data.datasets.Shapes'"),
    ):
        assert segfolio("inspect", SMALL[1], argument) == 2
        assert f"did you mean {says}?" in capsys.readouterr().err
    Path("x.yaml").write_text(yaml.safe_dump({"data": {"dataset": {"class_path": "Shapes"}, "rot": {}}}))
    assert segfolio("inspect", "x.yaml") == 2
    assert "did you mean 'data.root'?" in capsys.readouterr().err


def test_what_may_differ_on_resuming(segfolio, capsys):
    assert segfolio(*FIT, "--trainer.limit_val_batches=0") == 0
    assert segfolio("fit", "--ckpt_path=run", "--resume.allow=data.root, data.batchsize") == 2
    assert "'data.batchsize', which is no key; did you mean 'data.batch_size'?" in capsys.readouterr().err


def test_a_test_split_whose_files_are_not_here_yet_does_not_stop_a_training(segfolio, monkeypatch, tmp_path):
    from segfolio.data.dataset import SegmentationDataset
    from segfolio.data.datasets import Shapes
    from segfolio.data.module import DataModule
    from segfolio.errors import SegfolioError

    said: list[str] = []
    monkeypatch.setattr("segfolio.data.module.rank_zero_warn", said.append)

    def opened(root: str | None, split: str) -> SegmentationDataset:
        if split == "night":
            raise SegfolioError(f"{root}/night: no such folder")
        return Shapes(root, split, train=2, val=2)

    DataModule(opened, batch_size=1, test_split="night").setup("fit")
    assert said == ["data.test_split night cannot be tested on: None/night: no such folder"]
