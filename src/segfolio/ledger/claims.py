"""`experiments/<paper>/claims.yaml`: the rows of a paper that cannot be run here, and why."""

from pathlib import Path

from segfolio.errors import SegfolioError
from segfolio.ledger.paper import Paper, checked_paper
from segfolio.yaml_file import read_yaml

CLAIMS = "claims.yaml"


def read_claims(path: Path) -> list[Paper]:
    """The rows of a `claims.yaml`, each as a record-only `Paper` whose one deviation is why it cannot be run.

    The file holds `paper: {title, arxiv}` and `rows`, a list of `{row, expected, why}`, some with
    `speed`.

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
        if not (isinstance(row, dict) and row.keys() - {"speed"} == {"row", "expected", "why"}):
            raise SegfolioError(f"{where} is {row!r}, expected the keys row, expected, why")
        said = {key: row[key] for key in row if key != "why"}
        block = {**paper, **said, "deviations": [row["why"]], "status": "record-only"}
        found.append(checked_paper(block, where))
    return found
