"""What all tests share: one thread, no network, a place for runs, the real data where it is."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", HF_HUB_OFFLINE="1")
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start, too: all share the cores

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Tests are of the CPU, but for `pytest -m gpu`."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end one process would wait for the other."""
    items.sort(key=lambda item: item.path.name not in ("test_notebook.py", "test_resume.py"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Layers this small lose by being shared out."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of small real datasets; the test is skipped where there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data of ../shared/data is not here")
    return REAL_DATA


@pytest.fixture(scope="session")
def _lightning() -> None:
    """Imported before a test captures what is printed: its log would go on writing there."""
    import lightning.pytorch  # noqa: F401


@pytest.fixture
def segfolio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _lightning: None) -> Callable[..., int]:
    """The `segfolio` command, run in this process from an empty folder; returns its exit status."""
    from segfolio.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return main([str(a) for a in arguments])
            except SystemExit as stop:
                return int(stop.code or 0)

    return run
