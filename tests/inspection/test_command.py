"""`segfolio inspect`: configs, output, exit status."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from segfolio.data.datasets import CamVid, MaskFolder
from segfolio.data.formats.images import write_id_map
from segfolio.inspection import inspect_dataset
from tests.conftest import REPOSITORY
from tests.fake import camvid, mask_folder

FOLDER = {"class_path": "segfolio.data.datasets.MaskFolder"}


@pytest.fixture
def config(tmp_path):
    """A sound folder, and the config of it that the command reads."""
    mask_folder.write(tmp_path / "data")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"dataset": FOLDER, "root": "data"}))
    return "data.yaml"


def test_a_sound_dataset_passes(segfolio, config, capsys):
    assert segfolio("inspect", config) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["train", "4", "96x64", "96x64", "1"] in [line[:5] for line in lines]
    assert "nothing that stands in the way of training" in out
    assert "problems" not in out
    snippet = yaml.safe_load(
        out[out.index("# in the order ground, tree, car") :].split("\n\n")[0].partition("# inv")[0]
    )
    report = inspect_dataset({"train": lambda: MaskFolder("data", "train")})
    assert snippet["weight"] == pytest.approx(report.class_weights["median frequency balancing"], abs=1e-4)


def test_json_is_the_report_and_nothing_else(segfolio, config, capsys):
    write_id_map(Path.cwd() / "data/masks/val/0.png", np.full((64, 96), 9, np.uint8))
    assert segfolio("inspect", config, "--json") == 1
    names = ("train", "val", "test")
    report = inspect_dataset({name: partial(MaskFolder, "data", name) for name in names})
    found = json.loads(capsys.readouterr().out)
    assert found == report.as_dict()
    assert found["classes"] == {"ground": 0, "tree": 1, "car": 2}
    assert found["splits"]["val"]["unknown_ids"] == {"9": {"pixels": 64 * 96, "images": 1}}
    assert found["splits"]["train"]["sizes"] == {"smallest": [64, 96], "largest": [64, 96], "distinct": 1}
    assert len(found["problems"]) == 1


def test_a_problem_is_named_and_fails(segfolio, config, capsys):
    for i in range(3):
        write_id_map(Path.cwd() / f"data/masks/train/{i}.png", np.zeros((10, 10), np.uint8))
    assert segfolio("inspect", config) == 1
    out = capsys.readouterr().out
    listed = out.partition("3 masks of another size than the image:\n")[2].splitlines()
    assert listed[:3] == [f"  data/masks/train/{i}.png (10x10, image 96x64)" for i in range(3)]
    assert "3 problems to solve: training would fail or be wrong" in out


def test_remarks_are_cut_and_problems_are_not(segfolio, tmp_path, capsys):
    mask_folder.write(tmp_path / "data", train=15, val=15)
    for split in ("train", "val"):
        for i in range(12):
            void = 255 if split == "train" else 9
            write_id_map(tmp_path / f"data/masks/{split}/{i}.png", np.full((64, 96), void, np.uint8))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"dataset": FOLDER, "root": "data"}))
    assert segfolio("inspect", "c.yaml") == 1
    out = capsys.readouterr().out
    assert "12 images without class or object in train" in out
    assert "  ... and 2 more, all of which --json and --html name" in out
    assert out.count("label id 9 is not in the label space") == 12


def test_an_experiment_is_a_config_and_overrides_hold(segfolio, tmp_path, capsys):
    camvid.write(tmp_path / "here", train=5)
    experiment = REPOSITORY / "experiments/unet/camvid_367.yaml"
    assert segfolio("inspect", experiment, "--data.root", "here", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [split["images"] for split in found["splits"].values()] == [5, 2, 2]
    assert list(found["classes"]) == list(CamVid.labels.names)
    shapes = REPOSITORY / "experiments/unet/shapes_small.yaml"
    sizes = [f"--data.dataset.init_args.{split}=2" for split in ("train", "val", "test")]
    assert segfolio("inspect", shapes, *sizes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["read"] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        ([], 0, "remarks"),  # fit needs no test split
        (["--data.val_split=nowhere"], 1, "problems"),
        (["--data.test_split=nowhere"], 1, "problems"),
    ],
)
def test_a_missing_split(segfolio, tmp_path, capsys, arguments, status, kind):
    mask_folder.write(tmp_path / "data", test=0)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": {"dataset": FOLDER, "root": "data"}}))
    assert segfolio("inspect", "c.yaml", "--json", *arguments) == status
    found = json.loads(capsys.readouterr().out)
    split = arguments[0].partition("=")[2] if arguments else "test"
    assert f"has no split '{split}'" in "".join(problem["where"] for problem in found[kind])


def test_what_is_trained_on_must_not_evaluate(segfolio, config, capsys):
    assert segfolio("inspect", config, "--data.val_split=train", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [p["what"] for p in found["problems"]] == ["both trained and evaluated on"]
    assert segfolio("inspect", config, "--data.test_split=val") == 0


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        (None, [], "c.yaml cannot be read as YAML"),
        ("dataset: [", [], "c.yaml cannot be read as YAML"),
        ("model: {}", [], "c.yaml holds neither data: with keys below it nor dataset:"),
        ("data: 3", [], "c.yaml holds neither"),
        (
            "{dataset: segfolio.data.datasets.CamVid, rot: x}",
            [],
            "c.yaml: there is no key 'data.rot'; did you mean 'data.root'",
        ),
        ("dataset: segfolio.data.datasets.CamVit", [], "there is no class segfolio.data.datasets.CamVit; did you mean"),
        ("dataset: segfolio.data.datasets.CamVid", ["--data.rot=x"], "there is no key 'data.rot'; did you mean"),
        ("dataset: segfolio.data.datasets.CamVid", ["--jsn"], "there is no key 'jsn'"),
        ("dataset: segfolio.data.datasets.CamVid", ["--html"], "--html: expected one argument; see `segfolio inspect"),
    ],
)
def test_a_mistake_in_the_command_is_a_sentence(segfolio, tmp_path, capsys, text, arguments, says):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    assert segfolio("inspect", "c.yaml", *arguments) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


def test_the_real_camvid_passes(segfolio, real_data, capsys):
    experiment = REPOSITORY / "experiments/unet/camvid_sample60.yaml"
    assert segfolio("inspect", experiment, "--data.root", real_data / "CamVid", "--json") == 0
    found = json.loads(capsys.readouterr().out)["splits"]
    assert {name: split["read"] for name, split in found.items()} == {"train": 60, "val": 20, "test": 20}


def test_the_other_commands_do_not_wait_for_it():
    code = "import sys, segfolio.cli; sys.exit('segfolio.inspection' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
