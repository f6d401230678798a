"""A comparison as a picture: the main figure against the size of the network, and against the time of training."""

from collections.abc import Sequence
from io import BytesIO

from segfolio.comparison.rows import Compared
from segfolio.errors import SegfolioError

AXES = (("parameters", 1e6, "parameters (M)"), ("processor_time", 60.0, "minutes of one core"))


def chart(rows: Sequence[Compared]) -> bytes:
    """An SVG, the same for the same rows; hollow marks start from random weights.

    Raises:
        SegfolioError: matplotlib is not installed; nothing was run.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SegfolioError("a chart needs matplotlib; run `pip install matplotlib`") from None
    ran = [(row, row.value, row.main_figure) for row in rows if row.value is not None and row.main_figure is not None]
    if not ran:
        raise SegfolioError("there is nothing to draw: none of the experiments has been run")
    figure_of = ran[0][2]
    with matplotlib.rc_context({"svg.hashsalt": "segfolio", "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(9, 3.6), layout="constrained")
        panels = drawn.subplots(1, len(AXES), sharey=True)
        for panel, (field, unit, label) in zip(panels, AXES, strict=True):
            points = [(x / unit, value, row) for row, value, _ in ran if (x := row.mean(field)) is not None]
            middle = sum(x for x, _, _ in points) / max(1, len(points))
            for number, (x, value, row) in enumerate(sorted(points, key=lambda point: point[:2])):
                y = value if figure_of.unit else 100 * value
                looks = {"color": "C0"} if row.pretrained else {"color": "C1", "fillstyle": "none"}
                panel.plot(x, y, "o", **looks)
                side, height = ("left", 6) if x <= middle else ("right", -6), 5 if number % 2 else -11
                panel.annotate(row.file.stem, (x, y), xytext=(side[1], height), textcoords="offset points", ha=side[0])
            panel.set_xlabel(label)
            panel.margins(x=0.2, y=0.12)
            panel.grid(alpha=0.3)
        panels[0].set_ylabel(figure_of.label(figure_of.name) + ("" if figure_of.unit else " (%)"))
        file = BytesIO()
        drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
