"""`id_of`: the name of an image in this house, from the name of its file in an annotation."""

import re

_DRIVE = re.compile(r"^[A-Za-z]:")


def id_of(file_name: str) -> str:
    """The path without suffix, relative and below its folder, as predictions and pictures are named after it.

    `a/0.png`, `./a/0.png` and `a\\0.png` are `a/0`; so are `/a/0.png` and `../a/0.png`, which would lead elsewhere.
    """
    parts = _DRIVE.sub("", file_name.replace("\\", "/")).split("/")
    *folders, name = [part for part in parts if part not in ("", ".", "..")] or [""]
    stem, dot, _ = name.rpartition(".")
    return "/".join([*folders, stem if dot and stem else name])


def is_image_id(name: str) -> bool:
    """Whether files can be named after it: below a folder, wherever that is."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and not ("\\" in name or "\0" in name)
