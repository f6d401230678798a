"""Which experiments stand side by side, and in which order."""

from pathlib import Path

import pytest
import yaml

from segfolio.comparison.rows import compared, pretraining
from segfolio.errors import SegfolioError
from tests.ledger.conftest import write_claims, write_experiment


def trained_from(path: Path, weights: str | None) -> Path:
    """The experiment with a network of these weights."""
    content = yaml.safe_load(path.read_text())
    content["model"]["init_args"] = {"architecture": {"class_path": "Net", "init_args": {"width": 2}}}
    if weights:
        content["model"]["init_args"]["architecture"]["init_args"]["weights"] = weights
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_best_comes_first_and_what_was_not_run_last(tmp_path, replicated):
    replicated(write_experiment(tmp_path, "net/a"), 0.3)
    replicated(write_experiment(tmp_path, "net/b"), 0.5, 0.7)
    write_experiment(tmp_path, "net/0")
    write_claims(tmp_path)
    rows = compared([tmp_path / "experiments/net"])
    assert [(row.name, row.value) for row in rows] == [("net/b", 0.6), ("net/a", 0.3), ("net/0", None)]
    assert rows[0].classes == {"car": 0.1}
    assert rows[0].figures["test/mIoU"].std == pytest.approx(0.1414, abs=1e-4)
    assert rows[1].mean("processor_time") is None


def test_results_of_another_recipe_or_with_overrides_are_none(tmp_path, replicated):
    experiment = write_experiment(tmp_path, "net/a")
    replicated(experiment, 0.3, overrides=("model.x=1",))
    assert compared([experiment])[0].results is None
    replicated(experiment, 0.3)
    experiment.write_text(experiment.read_text().replace("batch_size: 2", "batch_size: 4"))
    assert compared([experiment])[0].results is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data": {"test": "f2"}}, "net/b was tested on other data than net/a"),
        ({"protocol": "six scales"}, r"net/b was tested otherwise \(six scales in place of whole image\) than net/a"),
    ],
)
def test_what_was_not_tested_in_one_way_is_refused(tmp_path, replicated, other, message):
    replicated(write_experiment(tmp_path, "net/a"), 0.3)
    replicated(write_experiment(tmp_path, "net/b"), 0.4, **other)
    with pytest.raises(SegfolioError, match=message):
        compared([tmp_path / "experiments/net"])


def test_families_make_figures_each_in_its_own_way(tmp_path, replicated):
    for name, how in (("a", "one confusion matrix"), ("b", "semantic inference of the queries")):
        words = f"20 images of test; whole image, at its original size; {how}; slide: windows of 2x2"
        replicated(write_experiment(tmp_path, f"net/{name}"), 0.3, protocol=words)
    assert len(compared([tmp_path / "experiments/net"])) == 2
    replicated(write_experiment(tmp_path, "net/b"), 0.3, protocol=words.replace("2x2", "4x4"))
    with pytest.raises(SegfolioError, match="net/b was tested otherwise"):
        compared([tmp_path / "experiments/net"])


def test_a_protocol_that_one_was_not_tested_by_is_none_of_its_figures(tmp_path, replicated):
    """And what two were tested by has to be alike, whatever a third was."""
    for name, way in zip("abc", ["", *["; slide: windows of 2x2"] * 2], strict=True):
        replicated(write_experiment(tmp_path, f"net/{name}"), 0.3, protocol=f"whole image{way}")
    assert len(compared([tmp_path / "experiments/net"])) == 3
    replicated(write_experiment(tmp_path, "net/c"), 0.3, protocol="whole image; slide: windows of 4x4")
    with pytest.raises(SegfolioError, match=r"net/c was tested otherwise \(.*4x4 in place of .*\) than net/b; "):
        compared([tmp_path / "experiments/net"])


def test_proposals_are_compared_as_masks_or_as_boxes_however_they_are_found(tmp_path, replicated):
    ways = [
        "everything mode with 4 x 4 points, the boxes around masks",
        "all masks, the boxes around them",
        "all masks",
    ]
    for name, way in zip("ab", ways, strict=False):
        replicated(write_experiment(tmp_path, f"net/{name}"), 0.3, protocol=f"whole image; everything: {way}")
    assert len(compared([tmp_path / "experiments/net"])) == 2
    replicated(write_experiment(tmp_path, "net/b"), 0.3, protocol=f"whole image; everything: {ways[2]}")
    with pytest.raises(SegfolioError, match="net/b was tested otherwise"):
        compared([tmp_path / "experiments/net"])


def test_what_pretraining_brought_is_of_one_network(tmp_path, replicated):
    for name, weights, found in (("a", "imagenet", 0.5), ("b", None, 0.3), ("c", "imagenet", 0.4)):
        replicated(trained_from(write_experiment(tmp_path, f"net/{name}"), weights), found)
    other = write_experiment(tmp_path, "net/d")
    other.write_text(other.read_text().replace("class_path: Net", "class_path: Other"))
    replicated(other, 0.1)
    pairs = [(one.name, random.name) for one, random in pretraining(compared([tmp_path / "experiments/net"]))]
    assert pairs == [("net/a", "net/b"), ("net/c", "net/b")]


def test_paths_that_are_none_are_named(tmp_path):
    with pytest.raises(SegfolioError, match=r"there is no .*nowhere; compare takes experiments, or folders"):
        compared([tmp_path / "nowhere"])
    with pytest.raises(SegfolioError, match="holds no experiment to compare"):
        compared([tmp_path])
