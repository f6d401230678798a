"""What is wrong with a dataset's files: found by `SegmentationDataset.problems`, told in one sentence or listed."""

import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from segfolio.errors import SegfolioError
from segfolio.words import counted

_NAMED = 3  # places that a message names of each problem


class Problem(NamedTuple):
    """One thing that is wrong in one place.

    Attributes:
        kind: of what it is a fault: image, mask, annotation, ...
        what: is wrong with it, to be read after the kind: `of another size than the image`.
        where: the file, and the place in it.
        fatal: whether training would fail or be wrong; else it is a remark.
        image_id: whose reading fails for it, where it is one image's.
    """

    kind: str
    what: str
    where: str
    fatal: bool = True
    image_id: str | None = None


def raise_problems(problems: Iterable[Problem], of: str) -> None:
    """Warn of remarks, one warning of each sort; raise a `SegfolioError` of all that is fatal.

    Args:
        of: what was looked at, to open the sentence: `60 pairs of image and mask`.
    """
    places = defaultdict[tuple[bool, str, str], list[str]](list)
    for problem in problems:
        places[problem.fatal, problem.kind, problem.what].append(problem.where)
    fatal = [
        f"{counted(len(where), kind)} {what}: {', '.join(where[:_NAMED])}{', ...' if len(where) > _NAMED else ''}"
        for (is_fatal, kind, what), where in places.items()
        if is_fatal
    ]
    if fatal:
        cut = any(is_fatal and len(where) > _NAMED for (is_fatal, *_), where in places.items())
        raise SegfolioError(f"{of}: {'; '.join(fatal)}{'; `segfolio inspect` names them all' if cut else ''}")
    for (_, kind, what), where in places.items():
        warnings.warn(f"{of}: {counted(len(where), kind)} {what}; the first is {where[0]}", stacklevel=2)
