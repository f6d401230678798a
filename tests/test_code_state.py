"""What is remembered of code is forgotten when the code changes."""

import sys

import pytest

from segfolio.code_state import code_state, imported


@pytest.fixture
def package(tmp_path):
    (tmp_path / "package" / "architectures").mkdir(parents=True)
    (tmp_path / "package" / "architectures" / "unet.py").write_text("width = 4")
    return tmp_path / "package"


def test_it_stays_while_nothing_changes(package) -> None:
    assert code_state(package) == code_state(package)


def test_it_changes_with_a_file_that_is_edited_added_or_removed(package) -> None:
    states = [code_state(package)]
    (package / "architectures" / "unet.py").write_text("width = 8")
    states.append(code_state(package))
    (package / "architectures" / "segnet.py").touch()
    states.append(code_state(package))
    (package / "architectures" / "unet.py").unlink()
    states.append(code_state(package))
    assert len({tuple(state) for state in states}) == 4


def test_it_changes_with_a_version_of_what_is_installed(package, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "timm-1.0.31.dist-info").mkdir()
    before = code_state(package)
    (tmp_path / "timm-1.0.31.dist-info").rename(tmp_path / "timm-1.0.32.dist-info")
    assert code_state(package) != before


def test_of_a_file_all_counts_that_it_imports_and_nothing_else(package) -> None:
    written = {
        "__init__.py": "",
        "errors.py": "",
        "layers/__init__.py": "",
        "layers/blocks.py": "def block():\n    from package.errors import Mistake",
        "layers/heads.py": "import torch",
        "architectures/unet.py": "import torch\nfrom package.layers import (\n    blocks,\n)",
        "architectures/segnet.py": "from package.architectures.unet import UNet\nimport package.layers.heads as heads",
    }
    for name, text in written.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text)

    def found(name: str) -> set[str]:
        return {path.relative_to(package).as_posix() for path in imported(package / name, package)}

    assert found("layers/heads.py") == {"layers/heads.py", "__init__.py"}
    of_unet = {"architectures/unet.py", "layers/blocks.py", "layers/__init__.py", "errors.py", "__init__.py"}
    assert found("architectures/unet.py") == of_unet
    assert found("architectures/segnet.py") == of_unet | {"architectures/segnet.py", "layers/heads.py"}
