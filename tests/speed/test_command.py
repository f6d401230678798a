"""`segfolio speed`: what is measured, what is kept, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.architectures.promptable.fast_sam import FastSAM
from segfolio.architectures.promptable.sam import SAM
from segfolio.families import Detection, MaskClassification, PerPixel, Promptable, PromptableDetection
from segfolio.ledger.speed import Measurement, Speed, network_hash
from segfolio.speed.measure import Mode
from segfolio.speed.networks import SpeedRow, forward, images
from tests.conftest import REPOSITORY

SHAPES = yaml.safe_load((REPOSITORY / "experiments/unet/shapes_small.yaml").read_text())


def write(name: str, width: int = 4, **speed: Any) -> Path:
    """`unet/shapes_small` with a time, and weights that nobody has."""
    path = Path("experiments", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(json.dumps(SHAPES))
    content["model"]["init_args"]["architecture"]["init_args"]["width"] = width
    block = {"table": "Table 1", "milliseconds": 10, "size": [48, 64], **speed}
    content["paper"] |= {"speed": {key: value for key, value in block.items() if value is not None}}
    path.write_text(yaml.safe_dump(content))
    return path


def test_networks_of_a_table_are_measured_in_turns_and_the_ledger_shows_their_ratio(segfolio, tmp_path, capsys):
    narrow, wide = write("unet/narrow"), write("other/wide", 16, milliseconds=40, batch=2, hardware="a K40")
    assert segfolio("speed", narrow, wide, "--device=cpu", "--rounds=3", "--warm_up=1") == 0
    said = capsys.readouterr().out
    assert "Table 1: networks with random weights in turns on 1 of " in said
    assert "float32, median of 3 rounds" in said
    assert "\n\npaper: on a K40\n" in said
    rows = [line.split() for line in said.splitlines() if "/" in line.split("  ")[0] and "x48" in line]
    assert [row[0] for row in rows] == ["unet/narrow", "other/wide"]
    assert rows[1][1:5] == ["64x48", "x", "2", "40.0"]
    (file,) = Path("experiments/speed").glob("*.json")
    found = Measurement.read(file)
    assert {name: len(timed.seconds) for name, timed in found.networks.items()} == {"unet/narrow": 3, "other/wide": 3}
    network = UNet(8, **yaml.safe_load(wide.read_text())["model"]["init_args"]["architecture"]["init_args"])
    timed = found.networks["other/wide"]
    assert timed.parameters == sum(p.numel() for p in network.parameters())
    assert timed.mebibytes > 4 * timed.parameters / 2**20 > found.networks["unet/narrow"].mebibytes / 4
    assert segfolio("results", "--state=ratio") == 0
    (line, *_), words = [x.split() for x in capsys.readouterr().out.splitlines()[2:3]], said.splitlines()[0]
    ratio = torch.tensor(timed.seconds) / torch.tensor(found.networks["unet/narrow"].seconds)
    expected = ["time", "on", "1", "CPU", "thread", "(x", "unet/narrow)", "↓", "4.00", f"{ratio.median():.2f}", "(3)"]
    assert line == ["other/wide", *expected, "x", f"{ratio.median() / 4:.2f}", "ratio"]
    assert segfolio("results") == 0
    assert capsys.readouterr().out.endswith(f"\n\n{words}\n")


def test_times_are_of_one_image_and_the_machine_is_kept(segfolio, tmp_path, monkeypatch):
    seconds = iter([8.0, 2.0] * 9)
    monkeypatch.setattr("segfolio.speed.measure.elapsed", lambda run, device: next(seconds))
    assert segfolio("speed", write("a/x", batch=4), write("a/y"), "--device=cpu", "--precision=bf16", "--rounds=2") == 0
    (file,) = Path("experiments/speed").glob("table_1-1_of_*-bfloat16_by_autocast.json")
    found = Measurement.read(file)
    assert {name: timed.seconds for name, timed in found.networks.items()} == {"a/x": [2.0, 2.0], "a/y": [2.0, 2.0]}
    assert (found.mode, found.threads, found.hardware["gpu"]) == ("bfloat16 by autocast", 1, None)
    assert found.device == "1 CPU thread in bfloat16 by autocast"
    assert found.hardware["cpu"]
    assert found.versions["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("speeds", "says"),
    [
        ([{}], "a/0.yaml is the only config or given twice; `segfolio speed` compares two or more networks of one"),
        ([{}, {"table": "Table 2"}], "a/0 is of the table 'Table 1' and a/1 of 'Table 2'; give configs of one table"),
        ([{}, {"size": None}], "a/1.yaml: paper.speed has no image size; add size: [height, width] as the row says"),
        (
            [{}, {"fps": 2}],
            "a/1.yaml: paper.speed has milliseconds and fps; it takes one of milliseconds, seconds",
        ),
    ],
)
def test_what_is_no_table_of_times_is_refused_before_anything_is_built(segfolio, capsys, monkeypatch, speeds, says):
    monkeypatch.setattr(SpeedRow, "family", lambda self: pytest.fail("was built"))
    paths = [write(f"a/{number}", **speed) for number, speed in enumerate(speeds)]
    assert segfolio("speed", *paths) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_an_experiment_without_a_time_is_named(segfolio, capsys, tmp_path):
    small = REPOSITORY / "experiments/unet/shapes_small.yaml"
    assert segfolio("speed", small, write("a/x")) == 2
    assert "shapes_small.yaml states no time; give experiments with paper.speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--device=tpu", "'tpu' is no device; give cpu"),
        ("--device=cuda", "there is no device 'cuda' here; give cpu"),
        ("--rounds=0", "argument --rounds: '0' is no number of them; give 1 or more"),
        ("--precision=8", "argument --precision: invalid choice: '8'"),
    ],
)
def test_a_mistake_in_an_argument_is_one_sentence(segfolio, capsys, argument, says):
    assert segfolio("speed", write("a/x"), write("a/y"), argument) == 2
    assert says in capsys.readouterr().err


def test_a_dataset_whose_classes_are_in_its_files_says_which_files(segfolio, capsys):
    path = write("a/x")
    content = yaml.safe_load(path.read_text())
    content["data"] = {"dataset": {"class_path": "segfolio.data.datasets.MaskFolder"}, "root": "nowhere"}
    path.write_text(yaml.safe_dump(content))
    assert segfolio("speed", path, write("a/y")) == 2
    assert "nowhere" in capsys.readouterr().err


def prompted(name: str, family: str, network: str, *speeds: dict[str, Any], **arguments: Any) -> Path:
    """A promptable experiment of small images."""
    cls = f"segfolio.architectures.promptable.{network}"
    init = {"architecture": {"class_path": cls, "init_args": arguments}, "optimizer": SHAPES_OPTIMIZER}
    if family == "Promptable":
        init["predict_with"] = {"points_per_side": 4}
    paper = {**SHAPES["paper"], "speed": [{"table": "Prompts", "size": [96, 128], **each} for each in speeds]}
    model = {"class_path": f"segfolio.families.{family}", "init_args": init}
    path = Path("experiments", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**SHAPES, "paper": paper, "model": model}))
    return path


SHAPES_OPTIMIZER = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def test_a_network_is_measured_by_several_numbers_of_prompts_and_beside_one_without_a_time(
    segfolio, tmp_path, capsys, monkeypatch
):
    tiny = {key: list(value) if isinstance(value, tuple) else value for key, value in SAM.tiny.items()}
    times = [{"milliseconds": 10}, {"milliseconds": 15, "prompts": 10}, {"milliseconds": 90, "prompts": "everything"}]
    sam = prompted("net/sam", "Promptable", "sam.SAM", *times, **tiny)
    others = [{"prompts": prompts} for prompts in (1, 10, "everything")]
    strict = {**FastSAM.tiny, "prompt_score_threshold": 0.4}
    fast = prompted("net/fast", "PromptableDetection", "fast_sam.FastSAM", *others, **strict)
    asked, built, read, family, answered = [], [], SAM.read, SpeedRow.family, list[bool]()

    def counting(network: Any, embedding: Any, prompts: Any, multimask: bool = True) -> Any:
        asked.append(len(prompts.image))
        return read(network, embedding, prompts, multimask)

    def answering(network: Any, reading: Any, keep: Any = None) -> Any:
        answered.append(bool((reading.iou > 0).any()))
        return draw(network, reading, keep)

    draw = FastSAM.draw
    monkeypatch.setattr(FastSAM, "draw", answering)

    def once(row: SpeedRow) -> Any:
        built.append(row.name)
        return family(row)

    monkeypatch.setattr(SAM, "read", counting)
    monkeypatch.setattr(SpeedRow, "family", once)
    assert segfolio("speed", sam, fast, "--device=cpu", "--rounds=1", "--warm_up=1") == 0, capsys.readouterr().err
    assert built == ["net/sam", "net/fast"]
    assert asked.count(1) == asked.count(10) == 3  # and once for the memory
    assert asked.count(16) == 3  # everything
    assert answered
    assert all(answered)  # whatever the threshold, there are masks to draw
    (file,) = Path("experiments/speed").glob("prompts-*.json")
    found = Measurement.read(file)
    rows = [f"net/{name}{how}" for name in ("sam", "fast") for how in ("", ", 10 points", ", everything")]
    assert set(found.networks) == set(rows)
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("net/")]
    assert [line.split("  ")[0] for line in lines] == rows
    assert "x 1.50" in lines[1]
    assert all(line.split().count("-") == 3 for line in lines[3:])
    assert segfolio("results", "--state=ratio") == 0
    shown = capsys.readouterr().out
    for how in (", 10 points", ", everything"):
        assert f"time{how} on 1 CPU thread (x sam) ↓" in shown
    assert shown.count("(x sam) ↓") == 5


def test_prompts_are_for_networks_that_are_prompted(segfolio, capsys):
    times = [{"milliseconds": 1}, {"milliseconds": 1, "prompts": 3}]
    path = write("a/x")
    content = yaml.safe_load(path.read_text())
    content["paper"]["speed"] = [{"table": "Table 1", "size": [48, 64], **each} for each in times]
    path.write_text(yaml.safe_dump(content))
    assert segfolio("speed", path, "--device=cpu", "--rounds=1") == 2
    assert "UNet is not prompted; paper.speed.prompts is for networks that are" in capsys.readouterr().err


def test_a_table_without_a_time_of_the_paper_is_refused(segfolio, capsys):
    assert segfolio("speed", write("a/x", milliseconds=None), write("a/y", milliseconds=None)) == 2
    assert "of the table 'Table 1' no config given states a time of the paper" in capsys.readouterr().err


FAMILIES = {
    "unet/camvid_sample60": PerPixel,
    "maskformer/shapes_panoptic": MaskClassification,
    "mask_rcnn/shapes_small": Detection,
    "mobile_sam/dsb2018_sample80": Promptable,
    "fast_sam/dsb2018_sample80": PromptableDetection,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_passed_without_weights_or_data(name):
    path = REPOSITORY / f"experiments/{name}.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"] = {"dataset": {"class_path": "segfolio.data.datasets.Shapes"}}
    family = SpeedRow(name, path, content, Speed("t", fps=1), (64, 64), "").family()
    assert type(family) is FAMILIES[name]
    assert not family.training
    run = forward(family, images(2, (64, 64), family.image_space, torch.device("cpu")), Mode(channels_last=True))
    found = run()
    if isinstance(family, Detection):
        assert [type(each).__name__ for each in found] == ["Detections", "Detections"]
    elif isinstance(family, Promptable | PromptableDetection):
        assert found.iou.shape[0] == 2
        assert type(family) is Promptable or found.iou.max() > 0  # else nothing would be drawn
    elif isinstance(family, PerPixel):
        assert found.shape == (2, 8, 64, 64)


def test_every_time_of_the_folio_but_those_without_a_size_can_be_measured():
    """They are rows of tables with at least two, and states what `speed` needs."""
    paths = [path for path in sorted((REPOSITORY / "experiments").glob("*/*.yaml")) if _timed(path)]
    rows = [row for path in paths for row in SpeedRow.read(path)]
    tables: dict[str, list[SpeedRow]] = {}
    for row in rows:
        tables.setdefault(row.speed.table, []).append(row)
    assert {table: len(each) for table, each in tables.items()} == {
        "FCN, Table 1": 3,
        "FastSAM, Table 1": 5 * 4,
        "MaskFormer, Table 1": 10,
        "R-CNN to Faster R-CNN, as lectured": 3,
        "YOLACT, as its repository lists it": 4,
    }
    assert all(row.network == network_hash(row.content, row.speed) for row in rows)


def _timed(path: Path) -> bool:
    content = yaml.safe_load(path.read_text())
    speed = content["paper"].get("speed", {})
    return all("size" in each for each in speed) if isinstance(speed, list) else "size" in speed
