"""Repositories of the Hugging Face hub, in its cache."""

from pathlib import Path

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.weights.files import read_file

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


def fetch(repository: str, *files: str) -> Path:
    """The hub's repository in its cache, downloaded once: its configuration and those of `files` that it has.

    Raises:
        SegfolioError: a name that no repository can have, as of a path with a mistake; no network.
    """
    try:
        for file in files:
            if isinstance(cached := try_to_load_from_cache(repository, file), str):
                return Path(cached).parent
    except HFValidationError as error:
        raise SegfolioError(
            f"{repository} is no file or folder, nor can a repository of the hub be named so"
        ) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", *files], etag_timeout=3))
    except (OSError, ValueError) as error:  # the hub's ways to say that there is no network
        raise SegfolioError(out_of_reach(repository, repository)) from error


def out_of_reach(what: str, repository: str, revision: str | None = None) -> str:
    """The sentence on what is in a repository of the hub, not in its cache, and cannot be downloaded."""
    whole = f"{repository} --revision {revision}" if revision else repository
    return (
        f"{what} is not in {constants.HF_HUB_CACHE}, nor to be downloaded; run `hf download {whole}` where there is a "
        "network and copy its cache to there"
    )


def read_repository(repository: str) -> dict[str, Tensor]:
    """The state dict of a repository of the hub, or of a folder like one, under the names in which it is stored.

    Raises:
        SegfolioError: no network, no weights, a file that holds something else.
    """
    folder = Path(repository) if Path(repository).is_dir() else fetch(repository, SAFE, PICKLED)
    found = [folder / name for name in (SAFE, PICKLED) if (folder / name).is_file()]
    if not found:
        raise SegfolioError(f"{repository} holds neither {SAFE} nor {PICKLED}; expected weights of a released model")
    return read_file(found[0])
