"""A paper's rows that cannot be run here."""

from typing import Any

import pytest
import yaml

from segfolio.errors import SegfolioError
from segfolio.ledger.claims import read_claims
from tests.ledger.conftest import write_claims

PAPER = {"title": "T", "arxiv": "1511.00561"}
ROW = {"row": "a row", "expected": {"test/mIoU": 0.5}, "why": "no truth"}


def test_every_row_is_a_record_of_the_paper(tmp_path):
    path = write_claims(tmp_path, {}, {"row": "two", "expected": {"test/HD95": 12.5}, "why": "no recipe"})
    first, second = read_claims(path)
    assert (first.title, first.arxiv, first.status, first.expected) == (
        *("A Net", "1511.00561", "record-only"),
        {"test/mIoU": 0.5},
    )
    assert (second.row, second.expected, second.deviations) == ("two", {"test/HD95": 12.5}, ["no recipe"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"rows": [ROW]}, r"claims\.yaml holds no claims; it takes paper: \{title, arxiv\} and rows, a list"),
        ({"paper": {**PAPER, "row": "x"}, "rows": [ROW]}, "holds no claims"),
        ({"paper": PAPER, "rows": ROW}, "holds no claims"),
        (
            {"paper": PAPER, "rows": [ROW, {"row": "x"}]},
            r"claims\.yaml, row 2 is .* expected the keys row, expected, why",
        ),
        ({"paper": PAPER, "rows": [{**ROW, "status": "trainable"}]}, "row 1 is .* expected the keys"),
        ({"paper": PAPER, "rows": [{**ROW, "expected": {"test/mIoU": 46.4}}]}, "row 1: paper.expected gives test/mIoU"),
        ({"paper": PAPER, "rows": [{**ROW, "expected": {"mIoU": 0.4}}]}, "row 1: paper.expected names 'mIoU'"),
        ({"paper": PAPER, "rows": [{**ROW, "why": 3}]}, "row 1: paper.deviations is .* expected a list of texts"),
    ],
)
def test_a_mistake_names_file_row_and_key(tmp_path, content: dict[str, Any], says):
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SegfolioError, match=says):
        read_claims(path)
