"""Every experiment: its block is valid, its classes exist, it trains two steps and is tested on fake data."""

import copy
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.figure import HOUSE
from segfolio.ledger.claims import CLAIMS, read_claims
from segfolio.ledger.paper import checked_paper
from segfolio.listing import architecture_classes, class_path
from tests.conftest import REPOSITORY

CLAIMED = sorted((REPOSITORY / "experiments").glob(f"*/{CLAIMS}"))
EXPERIMENTS = sorted(set((REPOSITORY / "experiments").glob("*/*.yaml")) - set(CLAIMED))
CONTENT = {path: yaml.safe_load(path.read_text()) for path in EXPERIMENTS}
MAIN = ("mIoU", "AP", "AP_box", "PQ", "mIoU_1click", "AR_1000", "AR_1000_box", "teacher_mIoU", "J_and_F")
LENGTHS = {"size", "short_side", "short_sides", "long_side", "max_size", "window", "stride"}


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def resolve(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def architecture(path: Path) -> dict:
    return CONTENT[path]["model"]["init_args"]["architecture"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_the_paper_block_is_valid(path):
    paper = checked_paper(CONTENT[path]["paper"], named(path))
    paper.check_declared(HOUSE)
    assert paper.row
    assert CONTENT[path].keys() >= {"model", "data", "trainer"}  # what has no recipe is a claim


@pytest.mark.parametrize("path", CLAIMED, ids=named)
def test_the_claims_of_a_paper_are_valid_and_of_figures_of_the_house(path):
    for paper in read_claims(path):
        paper.check_declared(HOUSE)
        assert paper.expected or paper.static or paper.speed


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_it_opens_with_its_own_command(path):
    assert path.read_text().startswith(f"# segfolio fit -c experiments/{named(path)}.yaml")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_the_protocols_of_expected_figures_are_tested(path):
    arguments = CONTENT[path]["model"]["init_args"]
    for key in CONTENT[path]["paper"].get("expected", {}):
        assert set(key.split("/")[1:-1]) <= set(arguments.get("test", {}).get("also", {})), key


PER_PIXEL = ("segformer", "segmenter", "setr", "swin_upernet", "beit_upernet", "intern_image")


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if path.parent.name in PER_PIXEL], ids=named)
def test_a_published_recipe_of_a_transformer_says_its_stochastic_depth(path):
    of_a_paper = bool(CONTENT[path]["paper"].get("arxiv")) and not path.with_suffix(".results.json").is_file()
    assert not of_a_paper or "drop_path" in architecture(path)["init_args"]


def test_every_architecture_is_named_by_an_experiment():
    named_by_experiments = {architecture(path)["class_path"] for path in EXPERIMENTS}
    files = {cls.__module__ for cls in architecture_classes()}
    assert files == {dotted.rpartition(".")[0] for dotted in named_by_experiments}
    assert named_by_experiments <= {class_path(cls) for cls in architecture_classes()}


def made_small(path: Path) -> dict[str, Any]:
    """The experiment with the tiniest network of its kind, on tiny data in the real layout, for two steps."""
    content = copy.deepcopy(CONTENT[path])
    network = content["model"]["init_args"]["architecture"]
    network["init_args"] = tiny_arguments(network)
    if teacher := content["model"]["init_args"].get("teacher"):  # sees what its student does
        teacher["init_args"] = {**tiny_arguments(teacher), "image_size": network["init_args"]["image_size"]}
    data = content["data"]
    arguments = data["dataset"].get("init_args", {})
    arguments |= {key: "data" for key in arguments if key.startswith("root_")}
    arguments |= {key: 2 for key in arguments if key == "val_every"}  # of a handful of images
    if data["dataset"]["class_path"].endswith(".CocoInstances"):  # written under COCO's own names
        data["dataset"]["init_args"] = {k: v for k, v in arguments.items() if k not in ("annotations", "images")}
    data.pop("remap", None)  # of classes that the fake data lack
    if data["dataset"]["class_path"].endswith(".MovingShapes"):
        arguments |= {"frames": 4, "train": 4, "val": 1, "test": 2}
    if clip_frames := data.get("clip_frames"):
        clip_frames["init_args"] |= {"frames": 2, "strides": [1]}
    for transform in (*data.get("train_transforms", ()), *data.get("eval_transforms", ())):
        if transform["class_path"].endswith(".ResizeShortest"):
            transform["init_args"]["sizes"] = [64, 80]
        elif transform["class_path"].endswith(".Resize") and "max_size" in transform["init_args"]:
            transform["init_args"]["size"] = 64
    part = data["batch_size"] // content["trainer"].get("accumulate_grad_batches", 1)  # images that come in one pass
    data |= {"root": "data", "num_workers": 0, "batch_size": min(2, part)}
    if ".encoder_decoder." not in network["class_path"]:  # any size will do
        shrink([data.get("train_transforms"), data.get("eval_transforms")])
        test = content["model"]["init_args"].get("test", {})
        quick = quick_prompts if ".promptable." in network["class_path"] else quick_protocol
        test |= {key: quick(value) for key, value in test.items()}
    content["model"]["init_args"].get("parameters", {}).pop("frozen", None)  # parts that a tiny encoder lacks
    content["model"]["init_args"].pop("init_from", None)  # a run that is not here
    short = {"max_steps": 2, "limit_val_batches": 2, "check_val_every_n_epoch": 1, "num_sanity_val_steps": 0}
    content["trainer"] |= {**short, "accelerator": "cpu", "accumulate_grad_batches": 1, "val_check_interval": None}
    content["trainer"]["logger"] = False  # takes longer than the training
    return content


def tiny_arguments(network: dict[str, Any]) -> dict[str, Any]:
    """Of an experiment's network, those of the tiniest of its kind."""
    cls, given = resolve(network["class_path"]), network.get("init_args", {})
    tiny = {key: value for key, value in cls.tiny.items() if given.get(key, "") is not None}  # null has a meaning
    return {**given, **({"weights": None} if has_weights(cls) else {}), **tiny}


def quick_protocol(node: Any) -> Any:
    """Two small scales for a preset, whose sizes are the paper's; the others with less pixels."""
    if isinstance(node, dict) and "class_path" not in node:
        return {name: quick_protocol(protocol) for name, protocol in node.items()}
    if isinstance(node, dict):
        shrink(node)
        return node
    return {"class_path": "segfolio.inference.protocols.MultiScale", "init_args": {"scales": [0.5, 1.0]}}


def quick_prompts(node: Any) -> Any:
    """Two clicks for a preset of many, nine points for everything; a detector's boxes are what `detect` writes."""
    if node == "clicks":
        return {"class_path": "segfolio.inference.prompt_protocols.Clicks", "init_args": {"clicks": 2}}
    if isinstance(node, dict) and node.get("class_path", "").endswith(".DetectedBoxes"):
        node["init_args"]["path"] = "boxes.json"
    elif isinstance(node, dict) and node.get("class_path", "").endswith(".Everything"):
        node["init_args"]["points_per_side"] = 3
    elif isinstance(node, dict) and node.get("class_path", "").endswith(".Rounds"):
        node["init_args"] |= {"rounds": 1, "clicks": 1}
    elif node in ("offline", "online"):
        return {"class_path": "segfolio.inference.video_protocols.Rounds", "init_args": {"mode": node, "rounds": 1}}
    elif isinstance(node, dict) and "class_path" not in node:
        return {name: quick_prompts(protocol) for name, protocol in node.items()}
    return node


def detect(dataset: SegmentationDataset, file: Path) -> None:
    """A detector's results: the box of each object, as sure as can be."""
    found = []
    for target in (dataset[index].target for index in range(len(dataset))):
        boxes = rle.boxes(target.segments.rles).tolist()
        for label, box in zip(target.segments.labels.tolist(), boxes, strict=True):
            category = dataset.labels.ids[label]
            found.append({"image_id": target.number, "category_id": category, "bbox": box, "score": 1.0})
    file.write_text(json.dumps(found))


def shrink(node: Any) -> None:
    """Lengths in pixels to 128 at most, in place."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node or ()):
        if key in LENGTHS:
            node[key] = [min(128, x) for x in value] if isinstance(value, list) else min(128, value or 128)
        elif isinstance(value, dict | list):
            shrink(value)


def shape(node: Any) -> Any:
    """What is left where one number is as good as another."""
    if isinstance(node, dict):
        return {key: shape(value) for key, value in sorted(node.items())}
    if isinstance(node, list):
        return sorted({json.dumps(shape(value)) for value in node})
    return 0 if isinstance(node, int | float) and not isinstance(node, bool) else node


def kinds() -> list[list[Path]]:
    """Experiments together that are alike but for numbers once they are small."""
    found: dict[str, list[Path]] = {}
    for path in EXPERIMENTS:
        small = {**made_small(path), "paper": None}
        network = small["model"]["init_args"]["architecture"]
        network["init_args"] = {k: v for k, v in network["init_args"].items() if not of_numbers(v)}
        found.setdefault(json.dumps(shape(small)), []).append(path)
    return list(found.values())


def settings(path: Path) -> set[str]:
    """What there is to go wrong: each part of a small experiment, and its network with its dataset."""
    small = made_small(path)
    network, model = small["model"]["init_args"].pop("architecture"), small["model"]["init_args"]
    own = {key: value for key, value in network["init_args"].items() if not of_numbers(value)}
    parts = {"network": own, **{key: small[key] for key in ("data", "trainer")}, "model": model}
    found = {json.dumps([part, key, shape(value)]) for part, given in parts.items() for key, value in given.items()}
    classes = [node["class_path"] for node in (small["model"], network, small["data"]["dataset"])]
    return found | {json.dumps(classes)}


APART = 3


def trained() -> list[Any]:
    """All kinds; those with less than `APART` settings that no other has are left to `make test-all`."""
    left, seen, chosen = [(alike, settings(alike[0])) for alike in kinds()], set[str](), []
    while left:
        alike, found = max(left, key=lambda each: len(each[1] - seen))
        left.remove((alike, found))
        marks = () if len(found - seen) >= APART else pytest.mark.slow
        chosen.append(pytest.param(alike, id=named(alike[0]), marks=marks))
        seen |= found
    return chosen


def of_numbers(node: Any) -> bool:
    """Whether an argument of a network is as good as its default: a size, or several."""
    return all(map(of_numbers, node)) if isinstance(node, list | tuple) else type(node) in (int, float)


def has_weights(cls: type) -> bool:
    return "weights" in inspect.signature(cls).parameters


@pytest.mark.parametrize("alike", trained())
def test_it_trains_two_steps_and_is_tested(alike, segfolio, tmp_path, capsys):
    path = alike[0]
    content = made_small(path)
    name = resolve(content["data"]["dataset"]["class_path"]).__module__.rpartition(".")[2]
    if "shapes" not in name:  # which are drawn
        importlib.import_module(f"tests.fake.{name}").write(tmp_path / "data")
    if "DetectedBoxes" in json.dumps(content["model"]):
        dataset = resolve(content["data"]["dataset"]["class_path"])
        detect(dataset(tmp_path / "data", content["data"]["test_split"]), tmp_path / "boxes.json")
    small = tmp_path / path.parent.name / path.name
    small.parent.mkdir()
    small.write_text(yaml.safe_dump(content))
    assert segfolio("fit", "-c", small, "--output=run") == 0, capsys.readouterr().err
    assert segfolio("test", "--ckpt_path=run/checkpoints/last.ckpt", "--trainer.limit_test_batches=2") == 0
    figures = json.loads(Path("run/test-limit_test_batches=2/figures.json").read_text())
    found = [figures[key] for name in MAIN if (key := f"test/{name}") in figures]
    assert found
    assert all(0 <= figure <= 1 for figure in found)
    expected = {key for each in alike for key in CONTENT[each]["paper"].get("expected", {})}
    assert {key for key in expected if key.startswith("test/")} <= figures.keys()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=named)
def test_it_is_accepted_as_it_stands(path, segfolio, capsys):
    assert segfolio("fit", "-c", path, "--print_config") == 0, capsys.readouterr().err
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_steps"] == CONTENT[path]["trainer"].get("max_steps", -1)
