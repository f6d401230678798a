"""The notebook runs from top to bottom, and what it trains has learned."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY


@pytest.mark.timeout(1200)
def test_quickstart():
    notebook = nbformat.read(REPOSITORY / "notebooks/quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    NotebookClient(notebook, timeout=1100, resources={"metadata": {"path": str(REPOSITORY / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    [miou], [ap50] = (re.findall(name + r" ([\d.]+)", said) for name in ("mIoU", "AP50"))
    assert float(miou) > 50
    assert float(ap50) > 60
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 7
