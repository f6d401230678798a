import warnings

import pytest

from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.errors import SegfolioError


def test_no_problem_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raise_problems([], of="3 images")


def test_one_sentence_counts_each_fault_and_names_the_first_three_places():
    problems = [Problem("mask", "missing", f"{i}.png") for i in range(4)] + [Problem("annotation", "empty", "a.json 7")]
    with pytest.raises(SegfolioError) as error:
        raise_problems(problems, of="9 images")
    said = "4 masks missing: 0.png, 1.png, 2.png, ...; 1 annotation empty: a.json 7"
    assert str(error.value) == f"9 images: {said}; `segfolio inspect` names them all"


def test_remarks_are_one_warning_of_each_sort():
    problems = [Problem("image", "in grey", f"{i}.png", fatal=False) for i in range(2)]
    with pytest.warns(UserWarning, match=r"^9 images: 2 images in grey; the first is 0\.png$") as caught:
        raise_problems(problems, of="9 images")
    assert len(caught) == 1
