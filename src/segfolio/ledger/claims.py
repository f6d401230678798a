"""`experiments/<paper>/claims.yaml`: the rows of a paper that cannot be run here, and why."""

from pathlib import Path

from segfolio.errors import SegfolioError
from segfolio.ledger.paper import Paper, checked_paper
from segfolio.yaml_file import read_yaml

CLAIMS = "claims.yaml"
_KEYS = {"row", "expected", "why", "static", "speed"}


def read_claims(path: Path) -> list[Paper]:
    """The rows of a `claims.yaml`, each as a record-only `Paper` whose one deviation is why it cannot be run.

    The file holds `paper: {title, arxiv}` and `rows`, a list of `{row, expected, why}`. A row may have `static` and
    `speed`, too, or in place of `expected`; a block of `static` with its `network` and `classes` is counted, and one
    without is the paper's figure alone, as of a network that is not here.

    Raises:
        SegfolioError: file, row and key that are wrong, and why.
    """
    content = read_yaml(path, "paper, rows")
    paper, rows = content.get("paper"), content.get("rows")
    if not (isinstance(paper, dict) and paper.keys() == {"title", "arxiv"} and isinstance(rows, list)):
        raise SegfolioError(f"{path} holds no claims; it takes paper: {{title, arxiv}} and rows, a list")
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if not (isinstance(row, dict) and {"row", "why"} <= row.keys() <= _KEYS and len(row) > 2):
            raise SegfolioError(f"{where} is {row!r}, expected the keys row, expected, why, and static where it has it")
        claimed = {key: row[key] for key in ("expected", "static", "speed") if key in row}
        block = {**paper, "row": row["row"], **claimed, "deviations": [row["why"]]}
        found.append(checked_paper({**block, "status": "record-only"}, where))
    return found
