"""The page of an inspection."""

import base64
import re
from functools import partial

import cv2
import numpy as np
import pytest

from segfolio.data.datasets import MaskFolder
from segfolio.data.formats.images import write_id_map, write_image
from segfolio.inspection import inspect_dataset
from segfolio.inspection.page import page
from tests.fake import mask_folder


@pytest.fixture
def folder(tmp_path):
    mask_folder.write(tmp_path)
    write_image(tmp_path / "images/val/large.png", np.full((400, 900, 3), 90, np.uint8))
    write_id_map(tmp_path / "masks/val/large.png", np.full((400, 900), 2, np.uint8))
    write_id_map(tmp_path / "masks/test/1.png", np.full((64, 96), 9, np.uint8))
    (tmp_path / "images/test/1.jpg").rename(tmp_path / "images/test/<b>.jpg")
    (tmp_path / "masks/test/1.png").rename(tmp_path / "masks/test/<b>.png")
    return tmp_path


@pytest.fixture
def text(folder):
    return page(inspect_dataset({name: partial(MaskFolder, folder, name) for name in ("train", "val", "test")}))


def test_it_is_whole_by_itself(text):
    assert set(re.findall(r'(?:src|href)="(\w+:)', text)) == {"data:"}
    assert not re.search(r"<link|<script|@import|url\(|<!-- ", text)


def test_each_class_has_the_two_images_with_most_of_it(text):
    sections = re.findall(r"<section><h3><i style=\"background:rgb\((.*?)\)\"></i>(\w+)</h3>(.*?)</section>", text)
    assert [(color, name) for color, name, _ in sections] == [
        ("120, 110, 100", "ground"),
        ("40, 140, 60", "tree"),
        ("60, 80, 200", "car"),
    ]
    assert [section.count("<img ") for *_, section in sections] == [2, 2, 2]
    assert "val <code>large</code>, 100.0% car" in sections[2][2]


def test_pictures_are_small_and_show_the_classes_over_the_image(text):
    data = re.search(r'base64,([^"]*)" width="360" height="160"[^>]*alt="large', text)[1]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (160, 360, 3)
    expected = (np.array([60, 80, 200]) + 90) / 2
    assert np.abs(picture[40:120, 40:320] - expected).max() < 6


def test_tables_and_problems_are_those_of_the_report(text, folder):
    assert "<td>3</td><td><i" not in text  # three classes, 0 to 2
    assert re.search(r"<td>9</td><td>unknown</td>(<td class=number>0</td>){4}<td class=number>6,144</td>", text)
    assert text.index("Problems") < text.index("1 sample that cannot be read") < text.index("Splits")
    assert f"<li>{folder}/masks/test/&lt;b&gt;.png: label id 9" in text
    assert '<p class="bad">1 problem to solve' in text


def test_a_report_of_nothing_is_a_page_too(tmp_path):
    text = page(inspect_dataset({"train": partial(MaskFolder, tmp_path, "train")}))
    assert "nothing could be opened" in text
    assert "1 split that cannot be opened" in text
