"""Test protocols in the families, the command and the ledger."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from segfolio.data.datasets import Shapes
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.inference.dense_test import Protocols, read
from segfolio.inference.protocols import MultiScale, Slide
from tests.conftest import REPOSITORY
from tests.families.test_mask_classification import family as mask_family
from tests.families.test_per_pixel import batch, family, indices, shapes, trainer

SLIDE = {"class_path": "segfolio.inference.protocols.Slide", "init_args": {"window": 32, "stride": 20}}


def test_the_test_and_further_protocols_see_the_same_images() -> None:
    model = family(
        labels=Shapes.labels, test=Protocols(Slide(24, 16), {"whole": "whole", "ms": MultiScale((0.5, 1.0))})
    )
    loops = trainer()
    (found,) = loops.test(model, shapes(), verbose=False)
    (whole,) = loops.test(family(labels=Shapes.labels), shapes(), verbose=False)
    assert found["test/whole/mIoU"] == whole["test/mIoU"]
    assert found["test/whole/pixel_accuracy"] == whole["test/pixel_accuracy"]
    assert len({found[f"test/{name}mIoU"] for name in ("", "whole/", "ms/")}) == 3
    assert "test/IoU/sky" in found
    assert not [key for key in found if key.count("/") > 2]
    (validated,) = loops.validate(model, shapes(), verbose=False)
    assert not [key for key in validated if "whole" in key]


def test_any_name_without_a_slash_is_one_of_a_protocol() -> None:
    """Also one with a dot, or of a method of torch's containers."""
    model = family(labels=Shapes.labels, test=Protocols(also={"ms1.5": "whole", "train": "whole", "values": "whole"}))
    (found,) = trainer().test(model, shapes(), verbose=False)
    assert {found[f"test/{name}/mIoU"] for name in ("ms1.5", "train", "values")} == {found["test/mIoU"]}
    for name in ("a/b", ""):
        with pytest.raises(SegfolioError, match=f"model.test.also has the name '{name}'; .* give one without a slash"):
            family(test=Protocols(also={name: "whole"}))


def test_validation_is_of_the_whole_image_and_prediction_by_the_test_s_protocol() -> None:
    model, small = family(test=Protocols(Slide(8, 8))).eval(), batch()
    with torch.no_grad():
        predicted = torch.stack([p.semantic for p in model.predict_step(small, 0)])
    assert not torch.equal(predicted, indices(model, small))
    assert torch.equal(indices(family(), small), indices(model, small))


def test_a_test_measures_the_answer_as_validation_does() -> None:
    told = family(labels=Shapes.labels)

    def answer(batch: Batch) -> list[Prediction]:
        return [replace(p, semantic=t.semantic) for p, t in zip(told.predict(batch), batch.targets, strict=True)]

    told.answer = answer  # type: ignore[method-assign]
    assert trainer().validate(told, shapes(), verbose=False)[0]["val/mIoU"] == 1
    assert trainer().test(told, shapes(), verbose=False)[0]["test/mIoU"] == 1


def test_the_ledger_s_words_are_those_of_the_protocols() -> None:
    assert family().protocol == "whole image, one view, at its original size; one confusion matrix"
    words = family(test=Protocols(Slide(512, 341), {"ms": "ms_dla"})).protocol
    assert words == (
        "windows of 512x512, stride 341x341, logits averaged, at its original size; one confusion matrix; ms: scales "
        "0.5, 0.75, 1, 1.25, 1.5, logits averaged, of each: whole image, one view"
    )


def test_mask_classification_averages_its_class_probabilities() -> None:
    model = mask_family("semantic", test=Protocols("ms_dla")).eval()
    (only,) = model.predict(small := next(iter(shapes().test_dataloader())))
    one_view = MultiScale((1.0,), flip=False)
    with torch.no_grad():
        (same,), (other,) = read(one_view, model.reader(), small), model.predict_step(small, 0)
    assert torch.equal(same.semantic, only.semantic)
    assert other.size == only.size
    assert model.protocol.endswith("semantic inference of the queries")


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_a_task_without_scores_per_pixel_has_one_protocol(task: str) -> None:
    with pytest.raises(
        SegfolioError, match=f"model.test needs scores per pixel, .* does not have for the task {task}; leave it out"
    ):
        mask_family(task, test=Protocols("ms_d2"))


def test_protocols_are_values_in_yaml_and_reach_the_figures_and_the_record(segfolio, tmp_path: Path, capsys) -> None:
    content = yaml.safe_load((REPOSITORY / "experiments/unet/shapes_small.yaml").read_text())
    content["paper"]["expected"] = {"test/slide/mIoU": 0.9}
    content["model"]["init_args"] |= {"test": {"protocol": "ms_dla", "also": {"slide": SLIDE, "crf": "crf_v1"}}}
    content["model"]["init_args"]["architecture"]["init_args"]["width"] = 2
    content["data"]["dataset"]["init_args"] = {"size": [32, 40], "train": 2, "val": 2, "test": 2}
    content["data"] |= {"num_workers": 0}
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content))
    assert segfolio("test", "-c", "row.yaml", "--trainer.accelerator=cpu", "--output=run") == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert re.search(r"test/slide/mIoU +90.0 +\d+.\d +-\d+.\d +outside", shown)
    assert "test/crf/mIoU" in shown
    figures, record = (json.loads(Path("run", name).read_text()) for name in ("figures.json", "record.json"))
    assert {"test/mIoU", "test/slide/mIoU", "test/crf/mIoU"} <= figures.keys()
    assert record["protocol"].startswith("2 images of test, no checkpoint; scales 0.5, 0.75, 1, 1.25, 1.5, logits")
    assert "; slide: windows of 32x32, stride 20x20, logits averaged" in record["protocol"]
    assert "; crf: whole image, one view, then CRFParameters(bi_w=5," in record["protocol"]


def test_an_unknown_protocol_is_told_before_anything_runs(segfolio, capsys) -> None:
    config = REPOSITORY / "experiments/unet/shapes_small.yaml"
    assert segfolio("fit", "-c", config, "--model.test.protocol=ms_mmsg") == 2
    assert "no test protocol 'ms_mmsg'; the presets are whole, slide" in capsys.readouterr().err
