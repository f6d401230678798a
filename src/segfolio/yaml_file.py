"""A YAML file of keys, or the sentence that says why it is none."""

from pathlib import Path
from typing import Any

import yaml

from segfolio.errors import SegfolioError


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """The mapping that a YAML file holds, as it is written.

    Args:
        expected: the keys, for the error.

    Raises:
        SegfolioError: no such file, or no YAML of keys.
    """
    try:
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SegfolioError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SegfolioError(f"{path} holds {repr(content)[:60]}, expected the keys {expected}")
    return content
