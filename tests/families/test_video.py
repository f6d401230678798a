"""The family of videos: what it is measured by in validation and test, in figures, ledger and command."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.architectures.promptable.sam2 import SAM2
from segfolio.data.batches import ForEvaluation, collate
from segfolio.data.datasets import MovingShapes, Shapes
from segfolio.data.module import DataModule
from segfolio.errors import SegfolioError
from segfolio.families import Promptable, Video
from segfolio.inference.prompt_test import PromptProtocols
from segfolio.inference.video_protocols import FromFirstFrame, Rounds
from segfolio.metrics.video import VideoMetric
from tests.clicks import Clicks as OwnFigure
from tests.families.test_per_pixel import trainer
from tests.families.test_video_training import SMALL, TINY
from tests.inference.test_video_protocols import family

CLOCKS = ("seconds",)


def moving(**arguments: Any) -> DataModule:
    dataset = partial(MovingShapes, size=(64, 64), frames=4, train=2, val=2, test=3)
    return DataModule(lambda root, split: dataset(root, split), batch_size=1, num_workers=0, **arguments)


def test_validation_and_test_have_protocols_of_their_own() -> None:
    one = Rounds(rounds=1, clicks=1)
    model = family(test=PromptProtocols(FromFirstFrame("clicks"), {"mask": "first_mask", "online": one}))
    (found,) = trainer().test(model, moving(), verbose=False)
    alone = trainer().test(family(test=PromptProtocols()), moving(), verbose=False)[0]  # images by clicks
    assert "test/mIoU_1click" in alone
    alone = trainer().test(family(), moving(), verbose=False)[0]
    assert found["test/mask/J_and_F"] == alone["test/J_and_F"] != found["test/J_and_F"]
    assert {"test/online/NoP75", "test/online/J_and_F_1frame", "test/J_reappeared"} <= found.keys()
    (validated,) = trainer().validate(model, moving(), verbose=False)
    assert {"val/J_and_F", "val/J", "val/F"} <= validated.keys()
    assert {"J_and_F", "J", "F", "NoP75", "evaluation_seconds"} <= model.declared.keys()
    assert model.protocol.startswith(
        "1 clicks at most of each object in the first frame that shows it, J and F by the rules of DAVIS, at its "
        "original size; mask: the mask of each object in the first frame"
    )


def test_figures_are_those_of_the_protocol_over_all_clips_whatever_the_batch() -> None:
    (alone,) = trainer().test(family(), moving(), verbose=False)
    (together,) = trainer().test(family(), moving(eval_batch_size=3), verbose=False)
    evaluated, metric = ForEvaluation(moving().split("test"), []), VideoMetric(Shapes.labels)
    with torch.no_grad():
        for number in range(3):
            given = collate([evaluated[number]])
            metric.update(FromFirstFrame().answer(family(), given), given.targets)
    for name, value in metric.compute().items():
        for found in (alone, together):
            assert found[f"test/{name}"] == pytest.approx(value.item(), abs=1e-6, nan_ok=True)


def test_best_is_chosen_by_what_validation_measures() -> None:
    assert family().main_figure.name == "J_and_F"
    assert family(validation="offline").main_figure.name == "J_and_F_rounds"


def test_a_family_of_images_is_tested_on_clips_too() -> None:
    """Frame by frame, and, where its network remembers, by memory."""
    one = {"by_itself": Rounds(memory=False, rounds=1), "mask": FromFirstFrame()}
    model = family(cls=Promptable, test=PromptProtocols(Rounds(rounds=1), one))
    (found,) = trainer().test(model, moving(), verbose=False)
    (expected,) = trainer().test(family(), moving(), verbose=False)
    assert found["test/mask/J_and_F"] == pytest.approx(expected["test/J_and_F"], abs=1e-3)  # frames are not resized
    assert {"test/NoP75", "test/by_itself/NoP75"} <= found.keys()


def test_other_evaluators_see_each_frame(tmp_path: Path) -> None:
    model = family(cls=Video, metrics=[OwnFigure], validation="clicks_5", test=PromptProtocols("clicks"))
    (found,) = trainer().validate(model, moving(), verbose=False)
    assert {"val/mIoU_5clicks", "val/NoC95"} <= found.keys()


def test_a_dataset_without_clips_is_refused_before_the_first_step() -> None:
    data = DataModule(lambda root, split: Shapes(root, split, size=(64, 64), test=2), num_workers=0)
    with pytest.raises(SegfolioError, match=r"test of Shapes holds images by themselves; take a dataset of videos"):
        trainer().test(family(), data, verbose=False)


def test_a_run_is_trained_tested_and_predicted_by_command(segfolio, tmp_path: Path, capsys) -> None:
    """From the configuration to figures, record, pictures of what is followed and predictions."""
    content = {
        "paper": {"title": "SAM 2", "arxiv": "2408.00714", "row": "one", "expected": {}, "status": "trainable"},
        "model": {
            "class_path": "segfolio.families.Video",
            "init_args": {
                "architecture": {
                    "class_path": f"{SAM2.__module__}.SAM2",
                    "init_args": json.loads(json.dumps(SMALL)),
                },
                "prompts": {
                    "class_path": "segfolio.data.clip_prompts.ClipPrompts",
                    "init_args": {"max_objects": 1, "clicks": 1},
                },
                "test": {
                    "protocol": "first_mask",
                    "also": {
                        "rounds": {
                            "class_path": "segfolio.inference.video_protocols.Rounds",
                            "init_args": {"rounds": 1, "clicks": 1},
                        }
                    },
                },
                "predict_with": {"points_per_side": 2},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
            },
        },
        "data": {
            "dataset": {
                "class_path": "segfolio.data.datasets.MovingShapes",
                "init_args": {"size": [64, 64], "frames": 4, "train": 2, "val": 1, "test": 1},
            },
            "clip_frames": {"class_path": "segfolio.data.clips.ClipFrames", "init_args": {"frames": 2}},
            "batch_size": 2,
            "num_workers": 0,
        },
        "trainer": {"accelerator": "cpu", "max_steps": 2},
    }
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content))
    assert segfolio("fit", "-c", "row.yaml", "--output=run") == 0, capsys.readouterr().err
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt") == 0, capsys.readouterr().err
    figures, record = (json.loads(Path("run/test", name).read_text()) for name in ("figures.json", "record.json"))
    assert {"test/J_and_F", "test/rounds/NoP75"} <= figures.keys()
    assert "the mask of each object in the first frame that shows it" in record["protocol"]
    assert list(Path("run/test/pictures/test").rglob("tracked.png"))
    assert list(Path("run/test/pictures/test").rglob("clip.png"))
    assert segfolio("predict", "--ckpt_path=run/checkpoints/last.ckpt") == 0, capsys.readouterr().err
    assert TINY.keywords["image_size"] == 64
