"""Equal figures on 1, 2 and 3 processes (gloo), to the last bit, though the images do not divide."""

import json
import math
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


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
        ("panoptic", "PQ"),
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
