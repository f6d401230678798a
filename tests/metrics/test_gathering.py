"""Equal figures on 1, 2 and 3 processes (gloo), to the last bit, though the images do not divide."""

import json
import math
import subprocess
import sys

import pytest

import segfolio.metrics
from segfolio.figure import HOUSE, by_name, of_name
from segfolio.metrics import RecordMetric
from tests.conftest import REPOSITORY
from tests.gathering import EVALUATORS, LABELS


@pytest.fixture(scope="module")
def of_each_process():
    command = [sys.executable, "-m", "tests.gathering"]
    return json.loads(subprocess.check_output(command, cwd=REPOSITORY, timeout=300))


@pytest.mark.parametrize(
    ("evaluator", "figure"),
    [
        ("semantic", "mIoU"),
        ("boundary F1", "boundary_f1"),
        ("boundary IoU", "boundary_mIoU"),
        ("Hausdorff", "HD95"),
        ("instance", "AP"),
        ("instance", "AP_box"),
        ("federated", "AP_common"),
        ("federated", "AP_rare_box"),
        ("clicks", "mIoU_1click"),
        ("clicks", "NoC85"),
        ("clicks", "click_seconds"),
        ("box", "mIoU_box"),
        ("proposals", "AR_10"),
        ("panoptic", "PQ"),
        ("video", "J_and_F"),
        ("video", "J_reappeared"),
        ("video, SA-V", "F"),
        ("video rounds", "J_and_F_3frames"),
        ("video rounds", "NoP75"),
        ("Rand", "V_rand"),
        ("Cityscapes", "iIoU"),
    ],
)
def test_every_process_of_any_number_finds_the_same_figures(of_each_process, evaluator, figure):
    alone, *others = (found[evaluator] for found in of_each_process)
    assert len(others) == 5
    assert all(found == alone for found in others)
    assert math.isfinite(float.fromhex(alone[figure]))
    assert float.fromhex(alone[figure]) not in (0.0, 1.0)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_what_is_computed_is_declared_and_what_is_declared_computed(of_each_process, evaluator):
    declared = by_name(EVALUATORS[evaluator](LABELS).figures)
    found = [of_name(name, declared) for name in of_each_process[0][evaluator]]
    assert None not in found
    assert set(found) == set(declared.values())
    assert declared.items() <= HOUSE.items()  # a name means one thing


def test_every_evaluator_of_the_house_is_here():
    classes = {getattr(segfolio.metrics, name) for name in segfolio.metrics.__all__}
    evaluators = {c for c in classes if isinstance(c, type) and issubclass(c, RecordMetric)} - {RecordMetric}
    assert evaluators == {type(evaluator(LABELS)) for evaluator in EVALUATORS.values()}
