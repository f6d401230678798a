"""Names of the hub's repositories."""

import pytest

from segfolio.errors import SegfolioError
from segfolio.weights.hub import SAFE, fetch


def test_a_path_with_a_mistake_is_one_sentence() -> None:
    with pytest.raises(SegfolioError, match=r"a/b/none\.pth is no file or folder, nor can a repository of the hub be"):
        fetch("a/b/none.pth", SAFE)
