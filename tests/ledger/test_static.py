"""Figures that need no run: what a paper states, how it is counted, and what the ledger shows of it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from segfolio.errors import SegfolioError
from segfolio.ledger.markdown import markdown
from segfolio.ledger.page import page
from segfolio.ledger.paper import Paper
from segfolio.ledger.rows import ledger
from segfolio.ledger.static import countings
from tests.ledger.conftest import write_claims, write_experiment

UNET = {"class_path": "segfolio.architectures.encoder_decoder.unet.UNet"}
FCN = "segfolio.architectures.encoder_decoder.fcn.FCN"
ALEXNET = {"class_path": FCN, "init_args": {"backbone": "alexnet", "stride": 32, "weights": "IMAGENET1K_V1"}}


def write(
    folder: Path, static: Any, network: Any = ALEXNET, dataset: Any = "segfolio.data.datasets.VOC", **paper: Any
) -> Path:
    """An experiment with a real network."""
    path = write_experiment(folder, static=static, **paper)
    content = yaml.safe_load(path.read_text())
    content["model"] = {"class_path": "segfolio.families.PerPixel", "init_args": {"architecture": network}}
    content["data"]["dataset"] = {"class_path": dataset}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def cells(folder: Path) -> list[tuple[str, str, str, str]]:
    """Of the first row each figure's name, the paper's figure, ours, and the state."""
    row = ledger(folder / "experiments")[0][0]
    return [(c.name, c.figure.text(c.expected), c.figure.text(c.ours.mean), c.state) for c in row.cells if c.ours]


def test_the_network_of_an_experiment_is_counted_with_the_classes_of_its_dataset(tmp_path):
    write(tmp_path, {"parameters": "57e6", "receptive_field": 355, "stride": 32, "layers": 8})
    assert cells(tmp_path) == [
        ("parameters", "57", "57.1", "within"),
        ("receptive field", "355", "355", "within"),
        ("stride", "32", "32", "within"),
        ("layers", "8", "8", "within"),
    ]


@pytest.mark.parametrize(
    ("printed", "state"),
    [  # AlexNet of 21 classes has 57,089,877
        *(("57e6", "within"), ("57.1e6", "within"), ("57.09e6", "within"), (57089877, "within"), ("6e7", "within")),
        *(("58e6", "outside"), ("57.0e6", "outside"), ("57.08e6", "outside"), (57089876, "outside")),
    ],
)
def test_parameters_are_within_to_the_last_printed_digit(tmp_path, printed, state):
    write(tmp_path, {"parameters": printed})
    ((*_, found),) = cells(tmp_path)
    assert found == state


FOUR = 512 * 512 * 9 * 4 * (3 + 4) + 512 * 512 * 4 * 21  # two convolutions of 3x3 and a classifier


@pytest.mark.parametrize(("share", "state"), [(0.98, "within"), (1.02, "within"), (0.96, "outside"), (1.04, "outside")])
def test_flops_are_within_three_percent(tmp_path, share, state):
    small = {**UNET, "init_args": {"width": 4, "depth": 0, "padding": "same"}}
    write(tmp_path, {"flops": round(FOUR * share), "crop": 512}, small)
    (cell,) = (c for c in ledger(tmp_path / "experiments")[0][0].cells if c.counted)
    assert (cell.ours.mean, cell.state) == (FOUR, state)
    assert cell.note == "FLOPs of 512 x 512 pixels: convolutions, matrix products and attention"


def test_a_part_of_the_network_is_named_in_the_figure(tmp_path):
    write(
        tmp_path,
        [
            {"parameters": "2e6", "of": "trunk - trunk.fc6 - trunk.fc7"},
            {"parameters": "0.09e6", "of": "score"},
            {"parameters": "57.0e6", "of": "- score"},
        ],
    )
    assert cells(tmp_path) == [
        ("parameters of trunk - trunk.fc6 - trunk.fc7", "2", "2.5", "within"),
        ("parameters of score", "0.09", "0.086", "within"),
        ("parameters - score", "57", "57", "within"),
    ]


def test_what_is_saved_is_against_another_network(tmp_path):
    against = {"class_path": FCN, "init_args": {"backbone": "vgg16", "stride": 32}}
    write(tmp_path, {"parameters_saved": 0.58, "against": against})
    assert cells(tmp_path) == [("parameters saved", "58", "57.5", "within")]  # of 134.35 M


def test_a_row_that_cannot_be_run_is_counted_all_the_same(tmp_path):
    claim = {"static": {"parameters": "57e6", "network": ALEXNET, "classes": 21}, "expected": {"test/mIoU": 0.5}}
    write_claims(tmp_path, claim)
    (row,), _ = ledger(tmp_path / "experiments")
    assert row.states == ("record-only", "within")


def test_a_claim_need_not_have_figures_of_runs(tmp_path):
    path = write_claims(tmp_path, {"static": {"parameters": "57e6", "network": ALEXNET, "classes": 21}})
    content = yaml.safe_load(path.read_text())
    del content["rows"][0]["expected"]
    path.write_text(yaml.safe_dump(content))
    (row,), _ = ledger(tmp_path / "experiments")
    assert row.states == ("within",)


def test_it_stands_beside_what_was_run_and_is_no_run(tmp_path, replicated, segfolio, capsys):
    claim = {"expected": {"test/mIoU": 0.464}, "tolerance": 0.02}
    static = [{"parameters": "57e6"}, {"layers": 9, "note": "why it is | another"}]
    replicated(write(tmp_path, static, **claim), 0.45, 0.46)
    write_experiment(tmp_path, "net/other", **claim)
    rows, _ = ledger(tmp_path / "experiments")
    assert [row.states for row in rows] == [("within", "within", "outside"), ("unrun",)]
    text = markdown(rows)
    assert "| VOC | mIoU | how |" in text  # of runs alone
    assert "| experiment | row | mIoU | parameters (M) | layers | how |" in text
    assert "| 46.4, **45.5 ± 0.7 (2)** within | 57, **57.1** within | 9, **8** outside[^2] | [^1] |" in text
    assert "\n[^2]: why it is | another\n" in text
    shown = page(rows)
    assert '<abbr title="layers: why it is | another">layers</abbr>' in shown
    assert "<p>57.1</p><p>8</p>" in shown
    assert segfolio("results", "--state=outside") == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["net/row     layers      9             8          -1  outside"]


def test_a_claims_figure_of_a_network_that_is_not_here_is_the_papers_alone(tmp_path):
    blocks = [{"parameters": "1.31e9"}, {"flops": "4635e9", "crop": 896, "note": "of Table 5"}]
    write_claims(tmp_path, {"static": blocks})
    (row,), _ = ledger(tmp_path / "experiments")
    found = [(c.name, c.figure.text(c.expected), c.ours, c.state, c.note) for c in row.cells if c.counted]
    assert found == [
        ("parameters", "1310", None, "record-only", ""),
        ("FLOPs", "4635", None, "record-only", "FLOPs of 896 x 896 pixels; of Table 5"),
    ]
    written = markdown([row])
    assert "1310" in written
    assert "4635" in written
    assert "1310" in page([row])


def test_flops_of_a_further_size_are_named_by_it(tmp_path):
    small = {**UNET, "init_args": {"width": 4, "depth": 0, "padding": "same"}}
    write(tmp_path, [{"flops": FOUR, "crop": 512}, {"flops": 4 * FOUR, "crop": 1024}], small)
    assert [(name, state) for name, *_, state in cells(tmp_path)] == [
        ("FLOPs", "within"),
        ("FLOPs at 1024 x 1024", "within"),
    ]


def test_an_experiment_that_claims_nothing_else_is_unrun_still(tmp_path, segfolio, capsys):
    write(tmp_path, {"layers": 8})
    (row,), _ = ledger(tmp_path / "experiments")
    assert row.states == ("unrun", "within")
    assert "<p></p><p>layers</p>" in page([row])
    assert '<p><span class="unrun">unrun</span></p><p><span class="within">' in page([row])
    figures = {"unrun": ["-", "-", "-", "-", "unrun"], "within": ["layers", "8", "8", "+0", "within"]}
    for state, found in figures.items():
        assert segfolio("results", f"--state={state}") == 0
        (line,) = capsys.readouterr().out.splitlines()[2:]
        assert line.split() == ["net/row", *found]


def test_a_changed_recipe_has_no_figure_of_the_paper(tmp_path, replicated):
    replicated(write(tmp_path, {"layers": 8}), 0.4, overrides=("model.x=1",))
    rows, _ = ledger(tmp_path / "experiments")
    assert [row.states for row in rows] == [("overridden",), ("unrun", "within")]


def test_it_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path, {"parameters": "57e6"})
    first = cells(tmp_path)

    def fails(*arguments: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr("segfolio.counted.counted", fails)
    assert cells(tmp_path) == first
    write(tmp_path, {"parameters": "57e6", "classes": 20})
    with pytest.raises(AssertionError, match="counted again"):
        cells(tmp_path)


def test_a_network_of_ones_own_is_counted_as_it_is_now(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for outputs in (8, 9):
        lines = ["from torch.nn import Conv2d", "class Own(Conv2d):", "    def __init__(self, classes: int) -> None:"]
        (tmp_path / "own.py").write_text("\n".join([*lines, f"        super().__init__(3, {outputs}, 1)", ""]))
        write(tmp_path, {"parameters": 4 * outputs}, {"class_path": "own.Own"})
        sys.modules.pop("own", None)
        assert cells(tmp_path)[0][-1] == "within"


@pytest.mark.parametrize(
    ("static", "says"),
    [
        (41e6, r"paper\.static is 41000000\.0, expected figures as printed, such as \{parameters: 41e6, "),
        (
            {"params": "41e6"},
            "paper.static has no 'params'; it takes the figures .*did you mean 'parameters'",
        ),
        ({"crop": 512}, "which states none of parameters"),
        ({"parameters": "many"}, "gives parameters: 'many', expected the number as it is printed, such as 41e6"),
        ({"parameters": True}, "gives parameters: True, expected the number"),
        ({"layers": -3}, "gives layers: -3"),
        ({"flops": "53e9"}, r"states flops without the size of the image; add crop: 512, or \[512, 1024\]"),
        ({"flops": "53e9", "crop": "large"}, "crop is 'large', expected a side in pixels, or"),
        ({"flops": "53e9", "crop": [512, 0]}, r"crop is \[512, 0\], expected a side"),
        ({"flops": "53e9", "crop": 512, "operators": "ptflops"}, "operators is 'ptflops', expected torch or fvcore"),
        ({"flops": "53e9", "crop": 512, "of": "head"}, "of counts parameters of a part; state flops in a block"),
        ({"parameters": "41e6", "crop": 512}, "has crop, which is of flops; state flops, or leave it out"),
        ({"parameters": "41e6", "classes": 0}, "classes is 0, expected a number of classes"),
        ({"parameters": "41e6", "network": "unet"}, r"network is 'unet', expected a network, \{class_path"),
        ({"parameters_saved": 0.62}, "parameters_saved without the network that has more; add against"),
        ({"parameters_saved": 62, "against": ALEXNET}, "gives parameters_saved: 62, expected a ratio such as 0.62"),
        ([{"layers": 8}, {"layers": 9}], "paper.static states layers twice; keep one of them"),
        ([{"flops": 8, "crop": 64}, {"flops": 9, "crop": 64}], "paper.static states FLOPs twice; keep one"),
    ],
)
def test_a_mistake_is_one_sentence(static, says):
    with pytest.raises(SegfolioError, match=says):
        Paper("T", "", "row", static=static)


@pytest.mark.parametrize(
    ("static", "network", "dataset", "says"),
    [
        ({"parameters": 1, "of": "skore"}, ALEXNET, "VOC", "FCN has no part 'skore'; did you mean 'score'?"),
        ({"stride": 1}, UNET, "VOC", "states receptive_field or stride, and UNet has no geometry()"),
        ({"parameters": 1}, UNET, "CocoInstances", "cannot know the number of classes, which .*CocoInstances tells .*"),
        ({"parameters": 1}, {"class_path": FCN.replace("FCN", "FNC")}, "VOC", "which is no class that can be imported"),
        ({"parameters": 1}, {"class_path": FCN, "init_args": {"wdth": 1}}, "VOC", "a FCN, cannot be built: .*wdth"),
        ({"flops": 1, "crop": 64, "through": "scores"}, UNET, "VOC", "which are made of queries; UNet has none"),
    ],
)
def test_a_mistake_of_the_network_names_the_file(tmp_path, static, network, dataset, says):
    write(tmp_path, static, network, f"segfolio.data.datasets.{dataset}")
    with pytest.raises(SegfolioError, match=rf"row\.yaml: .*{says}"):
        ledger(tmp_path / "experiments")


def test_a_claim_names_its_network(tmp_path):
    write_claims(tmp_path, {"static": {"parameters": "57e6", "classes": 21}})
    with pytest.raises(SegfolioError, match=r"claims\.yaml: paper\.static counts no network; add network"):
        ledger(tmp_path / "experiments")


def test_a_number_that_has_lost_its_digits_is_refused(tmp_path):
    path = write(tmp_path, {"layers": 8})
    path.write_text(path.read_text().replace("layers: 8", "parameters: 5.7e+7"))
    with pytest.raises(
        SegfolioError, match=r"row\.yaml: paper\.static is .*57000000\.0.*, expected figures with the digits"
    ):
        ledger(tmp_path / "experiments")


def test_digits_are_kept_as_printed():
    (counting,) = countings({"parameters": "41.0e6", "layers": 16})
    figure = counting.figure("parameters")
    assert (figure.rounding, counting.tolerance("parameters"), counting.tolerance("layers")) == (5e4, 5e4, 0.5)
    assert [figure.text(x) for x in (41e6, 41.268e6, None)] == ["41", "41.27", "-"]
    assert figure.text(-0.001e6, "+") == "+0"
