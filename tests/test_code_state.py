"""What is remembered of code is forgotten when the code changes."""

import sys

import pytest

from segfolio.code_state import code_state


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
