"""The promptable family: what it is asked in validation and test, in figures, ledger and command."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.architectures.promptable.sam import SAM
from segfolio.data.datasets import Shapes
from segfolio.data.module import DataModule
from segfolio.errors import SegfolioError
from segfolio.families import Promptable
from segfolio.inference.prompt_protocols import Boxes, Clicks
from segfolio.inference.prompt_test import PromptProtocols
from tests.clicks import Clicks as OwnFigure
from tests.families.test_per_pixel import trainer
from tests.inference.prompted import Discs

SGD = partial(torch.optim.SGD, lr=0.1)


def family(network: Any = Discs, **arguments: Any) -> Promptable:
    return Promptable(Shapes.labels, network, optimizer=SGD, **arguments)


def shapes(size: tuple[int, int] = (48, 64), **arguments: Any) -> DataModule:
    dataset = partial(Shapes, size=size, train=2, val=2, test=3)
    return DataModule(lambda root, split: dataset(root, split), batch_size=1, num_workers=0, **arguments)


def test_validation_and_test_have_protocols_of_their_own() -> None:
    model = family(
        test=PromptProtocols(Clicks(3), {"box": "boxes", "window": Clicks(1, window=32)}), metrics=[OwnFigure]
    )
    (found,) = trainer().test(model, shapes(), verbose=False)
    alone = [
        trainer().test(family(test=PromptProtocols(protocol)), shapes(), verbose=False)[0]
        for protocol in (Boxes(), Clicks(1, window=32))
    ]
    assert found["test/box/mIoU_box"] == alone[0]["test/mIoU_box"]
    assert found["test/window/mIoU_1click"] == alone[1]["test/mIoU_1click"] != found["test/mIoU_1click"]
    assert {"test/mIoU_3clicks", "test/NoC95", "test/evaluation_seconds"} <= found.keys()
    assert not {"test/mIoU_5clicks", "test/window/NoC95"} & found.keys()
    (validated,) = trainer().validate(model, shapes(), verbose=False)
    assert {"val/mIoU_5clicks", "val/NoC95"} <= validated.keys()
    assert {"mIoU_5clicks", "mIoU_box", "NoC95", "evaluation_seconds"} <= model.declared.keys()


def test_figures_do_not_depend_on_batches() -> None:
    loops = trainer()
    (alone,) = loops.test(family(test=PromptProtocols(Clicks(4))), shapes(), verbose=False)
    (together,) = loops.test(family(test=PromptProtocols(Clicks(4))), shapes(eval_batch_size=3), verbose=False)
    assert {k: v for k, v in alone.items() if "seconds" not in k} == {
        k: v for k, v in together.items() if "seconds" not in k
    }


def test_best_is_chosen_by_what_validation_measures() -> None:
    assert family().main_figure.name == "mIoU_1click"
    assert family(validation="boxes").main_figure.name == "mIoU_box"
    assert family(validation=Clicks(), main_metric="NoC85").main_figure.unit == "clicks"


def test_the_ledger_s_words_are_those_of_the_protocols() -> None:
    model = family(test=PromptProtocols(Clicks(7, window=128), {"box": "boxes"}))
    assert model.protocol == (
        "7 clicks on each object at most, in its middle and then in that of the deepest error, in windows of 128 "
        "pixels that overlap by half, the mask of highest predicted IoU, at its original size; box: the box around "
        "each object, one mask"
    )


def test_an_unknown_preset_or_a_name_with_a_slash_is_refused() -> None:
    with pytest.raises(SegfolioError, match=r"no protocol 'clicks_9' of prompts; .*did you mean 'clicks_5'"):
        family(validation="clicks_9")
    with pytest.raises(SegfolioError, match=r"model.test.also has the name 'a/b'"):
        family(test=PromptProtocols(also={"a/b": "boxes"}))


class SemanticShapes(Shapes):
    def read(self, index: int) -> Any:
        sample = super().read(index)
        sample.target.segments = None
        return sample


def test_a_dataset_without_objects_is_refused_before_the_first_step() -> None:
    data = DataModule(lambda root, split: SemanticShapes(root, split, size=(48, 64), test=2), num_workers=0)
    with pytest.raises(SegfolioError, match=r"test, whose first image is \w+, has no objects but a semantic map alone"):
        trainer().test(family(), data, verbose=False)


def test_sam_is_tested_without_training_by_the_names_of_its_release(segfolio, tmp_path: Path, capsys) -> None:
    """Weights of SAM's own names, 20 clicks and boxes, to the figures, the record and the pictures."""
    torch.manual_seed(0)
    torch.save(SAM(0, **SAM.tiny).state_dict(), tmp_path / "sam.pth")
    content = {
        "paper": {"title": "SAM", "arxiv": "2304.02643", "row": "one", "expected": {}, "status": "evaluate-only"},
        "model": {
            "class_path": "segfolio.families.Promptable",
            "init_args": {
                "architecture": {
                    "class_path": "segfolio.architectures.promptable.sam.SAM",
                    "init_args": {**SAM.tiny, "weights": str(tmp_path / "sam.pth")},
                },
                "test": {
                    "protocol": "clicks",
                    "also": {
                        "windows": {
                            "class_path": "segfolio.inference.prompt_protocols.Clicks",
                            "init_args": {"clicks": 2, "window": 32},
                        },
                        "box": "boxes",
                    },
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
            },
        },
        "data": {
            "dataset": {
                "class_path": "segfolio.data.datasets.Shapes",
                "init_args": {"size": [48, 64], "train": 1, "val": 1, "test": 2},
            },
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu", "max_steps": 1},
    }
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content))
    assert segfolio("test", "-c", "row.yaml", "--output=run") == 0, capsys.readouterr().err
    figures, record = (json.loads(Path("run", name).read_text()) for name in ("figures.json", "record.json"))
    assert {"test/mIoU_1click", "test/NoC90", "test/windows/mIoU_1click", "test/box/mIoU_box"} <= figures.keys()
    assert record["protocol"].startswith("2 images of test, no checkpoint; 20 clicks on each object at most, in its")
    assert len(list(Path("run/pictures/test").rglob("prompted.png"))) == 2
