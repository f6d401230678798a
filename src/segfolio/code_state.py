"""The code that answers: of this package, and of all that is installed beside it."""

import re
import sys
from pathlib import Path

from segfolio.data.checks.remembered import stamps

PACKAGE = Path(__file__).parent


def code_state(package: Path = PACKAGE) -> list[str]:
    """Another one as soon as a file of the package changes, or a version of what is installed, or Python."""
    return [*installed(), stamps(sorted(package.rglob("*.py")))]


def installed() -> list[str]:
    """The version of Python, and of all that is installed."""
    return [sys.version, *sorted({entry.name for folder in sys.path for entry in Path(folder).glob("*.dist-info")})]


def imported(file: Path, package: Path = PACKAGE) -> set[Path]:
    """A file of the package, and of the package all that it imports, that these import, and so on."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        if (path := waiting.pop()) not in found:
            found.add(path)
            waiting += _imports(path, package)
    return found


def _imports(file: Path, package: Path) -> set[Path]:
    """What a file imports by its full name, and the packages around it."""
    statement = rf"^\s*(?:from|import) {package.name}([\w.]*)(?: import (\([^)]*\)|.*))?"
    modules = {package}
    for dotted, names in re.findall(statement, file.read_text(), re.MULTILINE):
        module = package.joinpath(*dotted.split("."))
        modules |= {module, *(module / name for name in re.findall(r"\w+", names))}
    modules |= {above for module in modules for above in module.parents if package in above.parents}
    files = {file for module in modules for file in (module / "__init__.py", module.with_suffix(".py"))}
    return {file for file in files if file.is_file()}
