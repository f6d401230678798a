"""The experiments' arguments are those of the release whose figures they name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.ledger.claims import CLAIMS, read_claims
from segfolio.ledger.paper import Paper
from tests.conftest import REPOSITORY

PATHS = [path for path in (REPOSITORY / "experiments").glob("*rcnn/*.yaml") if path.name != CLAIMS]
FILES = {path.stem: path for path in PATHS}
CONTENT = {path: yaml.safe_load(path.read_text()) for path in PATHS}
ZOO = [path for path, content in CONTENT.items() if "Detectron2's model zoo" in content["paper"]["row"]]
CLAIMED = read_claims(REPOSITORY / "experiments/mask_rcnn" / CLAIMS)
TABLE_1 = [claim for claim in CLAIMED if claim.row.startswith("Mask R-CNN")]
MINIVAL = {"r50_c4": 0.303, "r101_c4": 0.327, "r50_fpn": 0.336, "r101_fpn": 0.354, "x101_fpn": 0.367}


def arguments(path: Path) -> dict[str, Any]:
    return CONTENT[path]["model"]["init_args"]["architecture"]["init_args"]


@pytest.mark.parametrize("path", ZOO, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_of_detectron2_have_its_losses_and_pooling(path: Path) -> None:
    assert arguments(path)["rpn"]["beta"] == 0
    roi = arguments(path)["roi"]
    assert (roi["beta"], roi["sampling_ratio"], roi["aligned"]) == (0, 0, True)
    if path.parent.name == "cascade_rcnn":
        assert roi["stage_weights"] == [1, 1, 1]
        assert roi["gradient_scale"] == pytest.approx(1 / 3)


def test_the_zoo_is_complete() -> None:
    assert len(ZOO) == 22


@pytest.mark.parametrize("claim", TABLE_1, ids=lambda claim: claim.row)
def test_a_row_whose_truth_is_not_public_names_the_one_that_runs(claim: Paper) -> None:
    (runs,) = [path for path in CONTENT if path.stem in claim.deviations[0]]
    backbone = claim.row.split(", ")[1].replace("ResNeXt", "X").replace("-", "_").lower()
    assert runs.stem == f"coco_{backbone}_minival"
    assert f"{claim.expected['test/AP']}, is recorded in claims.yaml" in str(CONTENT[runs]["paper"]["deviations"])


@pytest.mark.parametrize("model", MINIVAL)
def test_the_papers_own_recipe(model: str) -> None:
    """160k steps, a tenth from 120k on, short side 800; C4 has 64 regions and 300 proposals; X101 an image per GPU."""
    content = CONTENT[FILES[f"coco_{model}_minival"]]
    recipe = content["model"]["init_args"]
    assert content["paper"]["expected"] == {"test/AP": MINIVAL[model]}
    assert content["paper"]["status"] == "trainable"
    assert content["trainer"]["max_steps"] == 160000
    assert recipe["scheduler"]["init_args"]["milestones"] == [120000]
    assert recipe["optimizer"]["init_args"]["lr"] / content["data"]["batch_size"] == 0.02 / 16
    assert content["data"]["batch_size"] == (8 if model == "x101_fpn" else 16)
    assert content["data"]["train_transforms"][0]["init_args"]["sizes"] == [800]
    network = arguments(FILES[f"coco_{model}_minival"])
    assert network["roi"] == ({"samples": 64, "beta": 1.0} if "c4" in model else {"beta": 1.0})
    assert network.get("rpn", {}).get("after_nms") == ([2000, 300] if "c4" in model else None)
