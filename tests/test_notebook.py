"""The notebook runs from top to bottom, and what it trains learns."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY


def figures(steps: int | None = None) -> list[float]:
    """mIoU and AP50 that the notebook prints; trained for `steps` and tested on one batch, or as it says."""
    notebook = nbformat.read(REPOSITORY / "notebooks/quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    for cell in notebook.cells if steps else ():
        cell.source = re.sub(r"(STEPS = |max_steps=|total_iters=)\d+", rf"\g<1>{steps}", cell.source)
        cell.source = cell.source.replace("limit_val_batches=0", "limit_val_batches=0, limit_test_batches=1")
    NotebookClient(notebook, timeout=1100, resources={"metadata": {"path": str(REPOSITORY / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 7
    said = "".join(output.get("text", "") for output in outputs)
    return [float(figure) for name in ("mIoU", "AP50") for figure in re.findall(name + r" ([\d.]+)", said)]


def test_quickstart_runs():
    miou, ap50 = figures(steps=2)
    assert 0 <= ap50 < miou < 50  # as little as two steps teach


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_quickstart_learns():
    miou, ap50 = figures()
    assert miou > 50
    assert ap50 > 60
