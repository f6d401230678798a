"""What an evaluator says of its figures, and the sentence where it does not."""

import pytest
import torch

from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure
from segfolio.metrics import Evaluation, RecordMetric


class Perimeter(RecordMetric):
    """A user's own."""

    figures = (Figure("perimeter", "pixels", False), Figure("perimeter/<class>", "pixels", False))
    found = ("perimeter", "perimeter/car")

    def update(self, prediction, target): ...

    def compute(self):
        return dict.fromkeys(self.found, torch.tensor(3.0))


def test_all_figures_are_declared_with_their_time():
    evaluation = Evaluation([Perimeter()])
    assert [(f.name, f.unit, f.higher_is_better) for f in evaluation.declared.values()] == [
        ("evaluation_seconds", "s", False),
        ("perimeter", "pixels", False),
        ("perimeter/<class>", "pixels", False),
    ]
    assert list(evaluation.figures()) == ["perimeter", "perimeter/car", "evaluation_seconds"]


def test_an_evaluator_that_declares_nothing_is_refused():
    undeclared = type("Undeclared", (Perimeter,), {"figures": ()})
    says = r"Undeclared does not declare unit and direction .*\.Figure\('NAME', unit, higher_is_better\)"
    with pytest.raises(SegfolioError, match=says):
        Evaluation([undeclared()])


@pytest.mark.parametrize(("name", "said"), [("area", "area"), ("area/a/b", "area/<class>")])
def test_a_figure_that_is_computed_undeclared_is_named(name, said):
    more = type("More", (Perimeter,), {"found": ("perimeter", name)})
    with pytest.raises(SegfolioError, match=rf"More does not declare .*\.Figure\('{said}', unit"):
        Evaluation([more()]).figures()


def test_a_name_of_the_house_has_one_meaning():
    other = type("Other", (Perimeter,), {"figures": (Figure("mIoU", "pixels", False),)})
    with pytest.raises(SegfolioError, match=r"Other declares mIoU with another unit .*; give it a name of its own"):
        Evaluation([other()])
    same = type("Same", (Perimeter,), {"figures": (HOUSE["mIoU"],)})
    assert Evaluation([same()]).declared["mIoU"].higher_is_better


def test_an_evaluator_of_clips_gets_each_whole_beside_one_of_images():
    images, clips = [], []

    class OfClips(Perimeter):
        def update_clip(self, predictions, targets):
            clips.append((predictions, targets))

    class OfImages(Perimeter):
        def update(self, prediction, target):
            images.append((prediction, target))

    evaluation = Evaluation([OfClips(), OfImages()])
    evaluation.update(["a", "b", "c"], [1, 2, 3], [2, 1])
    assert clips == [(["a", "b"], [1, 2]), (["c"], [3])]
    assert images == [("a", 1), ("b", 2), ("c", 3)]
    evaluation.update(["d", "e"], [4, 5])
    assert clips[2:] == [(["d"], [4]), (["e"], [5])]
