"""A report in words: the tables and lists that the terminal and the page show."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segfolio.data.checks.problems import Problem
from segfolio.data.sample import Size
from segfolio.inspection.report import Report
from segfolio.table import table
from segfolio.words import counted

_REMARKS = 10  # places of each remark that the terminal names


class Table(NamedTuple):
    """Rows under a header; all columns but the first `left` hold numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int


def text(report: Report) -> str:
    """What the terminal shows; of every problem all places, of remarks the first."""
    parts = [f"{t.title}\n\n{table(t.header, t.rows, range(t.left, len(t.header)))}" for t in tables(report)]
    if weights := snippet(report):
        parts.append(weights)
    for title, problems, most in (("remarks", report.remarks, _REMARKS), ("problems", report.fatal, None)):
        if problems:
            parts.append(f"{title}\n\n" + "\n\n".join(_listed(*group, most) for group in grouped(problems)))
    return "\n\n\n".join([*parts, verdict(report)])


def verdict(report: Report) -> str:
    if report.fatal:
        return f"{counted(len(report.fatal), 'problem')} to solve: training would fail or be wrong"
    return "nothing that stands in the way of training"


def tables(report: Report) -> list[Table]:
    """Splits, classes by the ids of the files, and weights by class; of what there is."""
    if report.labels is None:
        return []
    return [_splits(report), _classes(report), *([_weights(report)] if report.class_weights else [])]


def snippet(report: Report) -> str:
    """YAML to be pasted: mean and standard deviation of what is trained on into the model's `init_args`, the class
    weights of each method into those of a loss; empty where there are none."""
    split, lines = report.splits.get(report.trained_on), list[str]()
    if split and split.read:
        lines += [f"# images of {split.dataset.image_space.words}, for a network without pretrained weights"]
        lines += [_yaml(*pair) for pair in zip(("mean", "std"), split.mean_and_std, strict=True)]
    if report.labels and report.class_weights:
        lines += [f"# in the order {', '.join(report.labels.names)}"]
        for method, weights in report.class_weights.items():
            lines += [f"# {method}", _yaml("weight", weights)]
    return "\n".join(lines)


def _yaml(key: str, values: Iterable[float]) -> str:
    return f"{key}: [{', '.join(f'{value:.4f}' for value in values)}]"


def grouped(problems: Iterable[Problem]) -> list[tuple[str, list[str]]]:
    """Heading and places of each kind of problem."""
    places: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        places.setdefault((problem.kind, problem.what), []).append(problem.where)
    return [(f"{_number(len(where), kind)} {what}", where) for (kind, what), where in places.items()]


def _number(n: int, noun: str) -> str:
    return f"{n} classes" if noun == "class" and n > 1 else counted(n, noun)


def _listed(heading: str, places: Sequence[str], most: int | None) -> str:
    shown = list(places[:most])
    if len(shown) < len(places):
        shown.append(f"... and {len(places) - len(shown)} more, all of which --json and --html name")
    return "\n".join([f"{heading}:", *(f"  {place}" for place in shown)])


def _splits(report: Report) -> Table:
    kinds = _kinds(report)
    header = ("split", "images", *kinds, "smallest", "largest", "sizes", "no class", "empty", "unreadable")
    rows = [
        (
            name,
            f"{split.images:,}",
            *(f"{getattr(split, kind).sum():,}" for kind in kinds),
            *(_size(split.by_area[i]) if split.sizes else "-" for i in (0, -1)),
            f"{len(split.sizes):,}",
            f"{split.void_share:.1%}",
            f"{len(split.empty):,}",
            f"{split.images - split.read:,}",
        )
        for name, split in report.splits.items()
    ]
    return Table("splits", header, rows, 1)


def _classes(report: Report) -> Table:
    """Pixels and images of every id that was expected or found in the files."""
    labels, kinds = report.labels, _kinds(report)
    assert labels
    ids = [*map(str, labels.ids), ", ".join(map(str, labels.void_ids))]
    unknown = sorted({i for split in report.splits.values() for i in split.unknown})
    header = ["id", "class"]
    rows = [[i, name] for i, name in zip(ids, (*labels.names, "no class"), strict=True)]
    strays = [[str(i), "unknown"] for i in unknown]
    for name, split in report.splits.items():
        header += [f"{name} pixels", "images", *kinds]
        for c, row in enumerate(rows):
            row += [f"{split.pixels[c]:,}", f"{split.images_with[c]:,}"]
            is_thing = c < labels.num_classes and labels.is_thing[c]
            row += [f"{getattr(split, kind)[c]:,}" if is_thing else "" for kind in kinds]
        for i, row in zip(unknown, strays, strict=True):
            row += [*(f"{n:,}" for n in split.unknown.get(i, (0, 0))), *("" for _ in kinds)]
    return Table("label ids", header, rows + strays, 2)


def _weights(report: Report) -> Table:
    split = report.splits[report.trained_on]
    share = split.pixels[:-1] / split.pixels[:-1].sum()
    columns = zip(split.dataset.labels.names, share, *report.class_weights.values(), strict=True)
    rows = [(name, f"{s:.2%}", *(f"{w:.4f}" for w in weights)) for name, s, *weights in columns]
    return Table(f"class weights, of {report.trained_on}", ("class", "share", *report.class_weights), rows, 1)


def _kinds(report: Report) -> list[str]:
    """Which of objects and crowds there are."""
    splits = report.splits.values()
    return [kind for kind in ("objects", "crowds") if any(getattr(split, kind).any() for split in splits)]


def _size(size: Size) -> str:
    return f"{size[1]}x{size[0]}"
