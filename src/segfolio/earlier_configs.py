"""The parser takes configs of earlier versions, wherever they are given."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from segfolio.upgrade import upgrade

_yaml = get_loader("yaml")


def take_earlier_configs() -> None:
    """Have jsonargparse read YAML in today's keys."""
    set_loader("yaml", _todays, (yaml.YAMLError,))


def _todays(text: str) -> Any:
    found = _yaml(text)
    return upgrade(found) if isinstance(found, dict) else found
