"""Where a test or a validation of a run is kept: what is measured otherwise has a folder of its own."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfolio.ledger.record import changes_recipe
from segfolio.resume import flatten

_MOST = 60
"""Characters of a name that say what is other, before a hash has to do."""


def folder_of(loop: str, checkpoint: Path, now: Mapping[str, Any], of_run: Mapping[str, Any]) -> str:
    """`test` for what the run's config says and its last checkpoint; else with what is other behind it.

    `test-best`, `test-protocol=ms_mmseg`, `test-limit_test_batches=2`: nothing that a test finds is written over by
    another that is not to be compared with it.

    Args:
        checkpoint: that is measured.
        now, of_run: configs, resolved.
    """
    new, old = dict(flatten(now)), dict(flatten(of_run))
    parts = [] if checkpoint.stem == "last" else [checkpoint.stem]
    for key in dict.fromkeys((*new, *old)):
        if _counts(key) and new.get(key) != old.get(key) and key in new:
            name = key.rpartition(".")[2]
            value = str(new[key]).rpartition(".")[2] if name == "class_path" else str(new[key])
            parts.append(value if name == "class_path" else f"{name}={value}")
    if not parts:
        return loop
    text = re.sub(r"[^\w=.+-]+", "_", "-".join(parts)).strip("_")
    return f"{loop}-{text if len(text) <= _MOST else f'{text[:_MOST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'}"


def _counts(key: str) -> bool:
    """Whether figures depend on it: network, data, how exactly and how much of them."""
    if key == "data.eval_batch_size":
        return False
    if key.startswith("trainer."):
        return key.startswith(("trainer.limit_", "trainer.precision", "trainer.overfit_batches"))
    return changes_recipe(key)
