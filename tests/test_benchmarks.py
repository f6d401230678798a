"""`make bench` reads the aims of every benchmark."""

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

BENCHMARKS = sorted(path for path in (REPOSITORY / "benchmarks").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_has_aims_and_a_main(path: Path) -> None:
    """Read, not imported: peers of the benchmarks are not installed everywhere."""
    body = ast.parse(path.read_text()).body
    assigned = {ast.unparse(target) for node in body if isinstance(node, ast.Assign) for target in node.targets}
    assert "AIMS" in assigned
    assert "main" in {node.name for node in body if isinstance(node, ast.FunctionDef)}
