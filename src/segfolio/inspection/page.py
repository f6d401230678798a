"""A report as one HTML file: tables, problems, and examples of each class."""

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

import cv2

from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.labels import Color, LabelSpace
from segfolio.data.sample import Target, to_pixels
from segfolio.inspection.report import Report
from segfolio.inspection.summary import Table, grouped, snippet, tables, verdict
from segfolio.viz.objects import overlay_objects
from segfolio.viz.overlay import Pixels, fit, fit_map, overlay

_TEMPLATE = Path(__file__).with_name("page.html")
_WIDTH = 360  # of a picture, at most
_EXAMPLES = 2  # of a class


def page(report: Report) -> str:
    """A self-contained page of a report; the images that it shows are read again."""
    labels = report.labels
    colors = dict(zip(labels.names, labels.palette, strict=True)) if labels else {}
    weights = snippet(report)
    filled = {
        "name": next((type(split.dataset).__name__ for split in report.splits.values()), "nothing could be opened"),
        "state": "bad" if report.fatal else "good",
        "verdict": verdict(report),
        "problems": _lists("Problems", report.fatal, " open") + _lists("Remarks", report.remarks),
        "tables": "".join(_table(t, colors) for t in tables(report)) + (weights and f"<pre>{escape(weights)}</pre>"),
        "examples": "".join(_examples(report, labels)) if labels else "",
    }
    text = _TEMPLATE.read_text()
    for name, content in filled.items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def _lists(title: str, problems: list[Problem], state: str = "") -> str:
    groups = "".join(
        f"<details{state}><summary>{escape(heading)}</summary><ul>"
        + "".join(f"<li>{escape(place)}</li>" for place in places)
        + "</ul></details>"
        for heading, places in grouped(problems)
    )
    return groups and f"<h2>{title}</h2>{groups}"


def _table(shown: Table, colors: dict[str, Color]) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{' class=number' * (i >= shown.left)}>"
            f"{_swatch(colors.get(text)) * (shown.header[i] == 'class')}{escape(text)}</{tag}>"
            for i, text in enumerate(row)
        )

    rows = "".join(f"<tr>{cells('td', tuple(row))}</tr>" for row in shown.rows)
    head = f"<thead><tr>{cells('th', tuple(shown.header))}</tr></thead>"
    return f"<h2>{escape(shown.title.capitalize())}</h2><div><table>{head}<tbody>{rows}</tbody></table></div>"


def _examples(report: Report, labels: LabelSpace) -> Iterator[str]:
    """Of each class the images with most of it, of all splits."""
    for c, name in enumerate(labels.names):
        found = [(*most, split) for split, counts in report.splits.items() for most in counts.most[c]]
        figures = [
            _figure(report.splits[split].dataset, index, name, pixels, split)
            for pixels, index, split in sorted(found, reverse=True)[:_EXAMPLES]
        ]
        if figures:
            yield f"<section><h3>{_swatch(labels.palette[c])}{escape(name)}</h3>{''.join(figures)}</section>"


def _figure(dataset: SegmentationDataset, index: int, name: str, pixels: int, split: str) -> str:
    sample = dataset[index]
    image = to_pixels(dataset.image_space.picture(sample.image))
    assert sample.target is not None  # pixels were counted in it
    height, width = image.shape[:2]
    size = (_WIDTH, max(1, round(height * _WIDTH / width))) if width > _WIDTH else (width, height)
    shown = _drawn(fit(image, size), sample.target, dataset.labels)
    image_id = escape(sample.image_id)
    return (
        f'<figure><img src="{_data_uri(shown)}" width="{size[0]}" height="{size[1]}" loading="lazy" '
        f'alt="{image_id} with its classes in colour"><figcaption>{escape(split)} <code>{image_id}</code>, '
        f"{pixels / (height * width):.1%} {escape(name)}</figcaption></figure>"
    )


def _drawn(image: Pixels, target: Target, labels: LabelSpace) -> Pixels:
    """The classes of all pixels, or the objects where there are only these."""
    size = image.shape[1], image.shape[0]
    if target.semantic is not None:
        return overlay(image, fit_map(target.semantic.numpy(), size), labels)
    assert target.segments is not None
    return overlay_objects(
        image, fit_map(target.segments.id_map.numpy(), size), target.segments.labels.tolist(), labels
    )


def _data_uri(picture: Pixels) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _swatch(color: Color | None) -> str:
    return "" if color is None else f'<i style="background:rgb{tuple(color)}"></i>'
