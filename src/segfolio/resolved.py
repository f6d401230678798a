"""A config with every default, as `segfolio fit` resolves it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def resolved(config: Path, overrides: Sequence[str] = (), quiet: bool = False) -> dict[str, Any] | None:
    """What `--print_config` prints; None where the config is refused.

    It is of a process of its own, so that who asks imports no network.

    Args:
        overrides: arguments of `fit`.
        quiet: do not print why a config is refused.
    """
    command = [sys.executable, "-m", "segfolio.cli", "fit", "-c", str(config), *overrides, "--print_config"]
    said = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=said, text=True, check=False)
    return None if done.returncode else dict(yaml.safe_load(done.stdout))
