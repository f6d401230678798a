"""`segfolio compare`, in the terminal and in a page."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from segfolio.comparison.command import filled
from segfolio.ledger.paper import read_experiment
from segfolio.ledger.speed import Measurement, Speed, Timed, network_hash
from tests.conftest import REPOSITORY
from tests.ledger.conftest import HARDWARE, write_experiment

CPU = {"hardware": {**HARDWARE, "gpus": 0, "gpu": None}, "steps": 100, "wall_time": 600.0, "processor_time": 90.0}


@pytest.fixture
def folio(tmp_path, monkeypatch, replicated) -> Path:
    """Two experiments of one network that were run, and a third that was not."""
    monkeypatch.chdir(tmp_path)
    for name, weights, found in (("tuned", "imagenet", 0.5), ("scratch", None, 0.3)):
        path = write_experiment(tmp_path, f"net/{name}")
        content = yaml.safe_load(path.read_text())
        content["model"] = {"init_args": {"architecture": {"class_path": "N", "init_args": {"weights": weights}}}}
        path.write_text(yaml.safe_dump(content))
        replicated(path, found, slide=True, parameters=4_500_000, **CPU)
    write_experiment(tmp_path, "net/unrun")
    return tmp_path


def test_tables_hold_figures_cost_classes_and_what_pretraining_brought(folio, segfolio, capsys):
    assert segfolio("compare", "experiments/net") == 0
    figures, classes, pretrained = capsys.readouterr().out.strip().split("\n\n")
    assert figures.splitlines() == [
        "| experiment | parameters | mIoU | slide | steps | minutes | minutes of one core |",
        "|---|--:|--:|--:|--:|--:|--:|",
        "| [net/tuned](experiments/net/tuned.yaml) | 4.50 M | 50.0 (1) | 55.0 (1) | 100 | 10.0 | 1.5 |",
        "| [net/scratch](experiments/net/scratch.yaml) | 4.50 M | 30.0 (1) | 35.0 (1) | 100 | 10.0 | 1.5 |",
        "| [net/unrun](experiments/net/unrun.yaml) | - | - | - | - | - | - |",
    ]
    assert classes.splitlines()[0] == "| IoU of | car |"
    assert classes.splitlines()[2:] == ["| net/tuned | 10.0 |", "| net/scratch | 10.0 |"]
    assert pretrained.splitlines()[2:] == ["| net/tuned | 50.0 (1) | 30.0 (1) | +20.0 |"]


def test_what_no_run_recorded_has_no_column(folio, segfolio, replicated, capsys):
    replicated(write_experiment(folio, "old/a"), 0.4, steps=100, wall_time=600.0)
    assert segfolio("compare", "experiments/old") == 0
    assert capsys.readouterr().out.splitlines()[0] == "| experiment | mIoU | steps | minutes |"


def test_times_and_sizes_are_shown_before_a_run(tmp_path, segfolio, monkeypatch, capsys):
    """Of prompts, in the rows that state them alike."""
    monkeypatch.chdir(tmp_path)
    asked = [{"table": "T", "size": [64, 64], "prompts": prompts} for prompts in (1, 10)]
    networks = {}
    for name, seconds in (("a", 0.5), ("b", 2.0)):
        path = write_experiment(tmp_path, f"net/{name}", speed=asked)
        for speed in (Speed(**each) for each in asked if name == "a" or each["prompts"] == 1):
            timed = Timed(network_hash(read_experiment(path), speed), [seconds, 9.0, 0.0], 5.0, 3_000_000)
            networks[f"net/{name}{speed.asked}"] = timed
    found = Measurement("T", "float32", 1, {**HARDWARE, "gpu": None}, "2030", "0123", networks=networks)
    found.write(found.path(tmp_path / "experiments"))
    assert segfolio("compare", "experiments/net") == 0
    assert capsys.readouterr().out.splitlines() == [
        "| experiment | parameters | time | time, 10 points |",
        "|---|--:|--:|--:|",
        "| [net/a](experiments/net/a.yaml) | 3.00 M | 0.50 s | 0.50 s |",
        "| [net/b](experiments/net/b.yaml) | 3.00 M | 2.00 s | - |",
        "",
        f"Times of {found.how}.",
    ]
    alone = {"net/a": networks["net/a"]}  # of another machine, and of another one that does not say its commit
    for cpu, commit, some in (("Another", "0123", alone), ("A third", None, networks)):
        other = replace(found, hardware={**found.hardware, "cpu": cpu}, commit=commit, networks=some)
        other.write(other.path(tmp_path / "experiments"))
    assert segfolio("compare", "experiments/net") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Times of {found.how}."


def test_a_protocol_that_has_not_the_main_figure_shows_its_own(tmp_path, segfolio, monkeypatch, replicated, capsys):
    """Proposals the recall of the most, however each network finds them."""
    monkeypatch.chdir(tmp_path)
    for name, way in (("sam", "everything mode with 32 x 32 points"), ("fast", "all masks that are found")):
        others = {"test/boxes/mIoU": 0.4, "test/everything/AR_10": 0.1, "test/everything/AR_1000": 0.6}
        replicated(
            write_experiment(tmp_path, f"net/{name}"), 0.5, others=others, protocol=f"as it is; everything: {way}"
        )
    assert segfolio("compare", "experiments/net") == 0
    heading, _, *rows = capsys.readouterr().out.splitlines()[:4]
    assert heading.startswith("| experiment | mIoU | boxes | everything, AR_1000 |")
    assert all("| 50.0 (1) | 40.0 (1) | 60.0 (1) |" in row for row in rows)


def test_a_page_is_filled_where_it_says_so_and_again(folio, segfolio):
    page = folio / "docs/page.md"
    page.parent.mkdir()
    page.write_text("Before.\n\n<!-- compare ../experiments/net --chart net.svg -->\n<!-- compared -->\n\nAfter.\n")
    assert segfolio("compare", "--page", "docs/page.md") == 0
    text, drawn = page.read_text(), (folio / "docs/net.svg").read_bytes()
    assert text.startswith("Before.\n\n<!-- compare ../experiments/net --chart net.svg -->\n\n| experiment |")
    assert "[net/tuned](../experiments/net/tuned.yaml) | 4.50 M | 50.0 (1)" in text
    assert text.endswith("(net.svg)\n\n<!-- compared -->\n\nAfter.\n")
    words = {node.text for node in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")}
    assert {"tuned", "scratch", "mIoU (%)", "parameters (M)", "minutes of one core"} <= words
    assert segfolio("compare", "--page", "docs/page.md") == 0
    assert (page.read_text(), (folio / "docs/net.svg").read_bytes()) == (text, drawn)


def test_before_a_run_a_page_says_so(folio):
    page = folio / "page.md"
    page.write_text("<!-- compare experiments/net/unrun.yaml --chart net.svg -->\n<!-- compared -->\n")
    assert "\nNot run yet: [net/unrun](experiments/net/unrun.yaml).\n" in filled(page)
    assert not (folio / "net.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing holds no experiment to compare"),
        (["experiments/net", "--page", "page.md"], "--page says itself what to compare"),
        (["--page", "page.md"], "there is no page page.md"),
        (["experiments/net", "--chart", "net.png"], "give one that ends in .svg"),
        (["experiments/net/unrun.yaml", "--chart", "net.svg"], "there is nothing to draw"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(folio, segfolio, capsys, arguments, says):
    assert segfolio("compare", *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("text", ["Nothing.\n", "<!-- compare experiments/net -->\nno end\n"])
def test_a_page_without_a_comparison_is_refused(folio, segfolio, capsys, text):
    (folio / "page.md").write_text(text)
    assert segfolio("compare", "--page", "page.md") == 2
    assert (
        "page.md: expected `<!-- compare CONFIG ... -->`, each with its `<!-- compared -->`" in capsys.readouterr().err
    )
    assert (folio / "page.md").read_text() == text


def test_the_comparisons_of_the_folio_are_as_written_last():
    """Otherwise: `make results`."""
    page = REPOSITORY / "docs/small_runs.md"
    assert page.read_text() == filled(page, draw=False)
