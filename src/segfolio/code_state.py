"""The code that answers: of this package, and of all that is installed beside it."""

import sys
from pathlib import Path

from segfolio.data.checks.remembered import stamps


def code_state(package: Path = Path(__file__).parent) -> list[str]:
    """Another one as soon as a file of the package changes, or a version of what is installed, or Python."""
    installed = {entry.name for folder in sys.path for entry in Path(folder).glob("*.dist-info")}
    return [sys.version, stamps(sorted(package.rglob("*.py"))), *sorted(installed)]
