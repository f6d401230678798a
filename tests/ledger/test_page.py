"""The page, as a browser shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segfolio.ledger.page import page
from segfolio.ledger.rows import STATES, ledger
from tests.ledger.conftest import write_claims, write_experiment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000"),
]


@pytest.fixture
def text(tmp_path, replicated) -> str:
    """30.0 against 46.4, 45.0 against 46.4, one without a claim, two that were not run; a picture of the first."""
    import cv2

    claim = {"expected": {"test/mIoU": 0.464}, "tolerance": 0.02}
    replicated(write_experiment(tmp_path, "net/a", **claim), 0.30, slide=True)
    replicated(write_experiment(tmp_path, "net/b", **claim), 0.45, 0.46)
    replicated(write_experiment(tmp_path, "net/c", row="<b>bold</b>"), 0.05)
    write_experiment(tmp_path, "net/d", **claim)
    write_experiment(tmp_path, "net/e", expected={"test/HD95": 12.5}, tolerance={"test/HD95": 1.0})
    write_claims(tmp_path, {"row": "a test server's"}, name="other")
    pictures = tmp_path / "runs/net/a/seed0/test/pictures/test"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "one.png"), np.full((300, 1600, 3), 90, np.uint8))
    return page(ledger(tmp_path / "experiments")[0])


def test_it_is_whole_by_itself(text):
    assert set(re.findall(r'(?:src|href)="(\w+:)', text)) == {"data:", "https:"}  # a picture, and links to arXiv
    assert not re.search(r"<link|<script src|@import|url\(", text)
    assert text.count("data:image/webp;base64,") == 1
    assert "<!--" not in text


def test_it_opens_with_what_was_run(text):
    ran, systems, others = (text.index(f"<h2>{name}") for name in ("What was run", "All systems", "What was not run"))
    assert ran < text.index("<code>net/c") < systems < others < text.index("<code>net/d")
    matrix = text[systems:others]
    assert re.findall(r'<th scope="col" class="[\w-]*">([\w -]+)<', matrix)[2:] == [
        *("within", "outside", "no claim", "unrun", "record-only"),
    ]
    assert '<a href="#find=net">net</a></td><td>A Net</td><td>1</td><td>1</td><td>2</td><td>2</td><td></td>' in matrix


def test_an_experiment_is_one_row_with_its_figures_in_their_units(text):
    assert text.count("<tr data-states=") == 6
    assert "<p>mIoU</p><p>slide/mIoU</p>" in text
    assert "<p>30.0 (1)</p><p>35.0 (1)</p>" in text
    assert "<p>HD95 (pixels) ↓</p></td>" in text
    assert "<p>12.50</p>" in text


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_its_colour_by_day_and_by_night(text, state):
    name = state.replace(" ", "-")
    assert f".{name} {{ color: var(--{name}); }}" in text
    assert text.count(f"--{name}: #") == 2


def test_text_is_escaped(text):
    assert "<p>&lt;b&gt;bold&lt;/b&gt;</p>" in text
    assert "<li>none &lt; some</li>" in text


def rendered(folder: Path, text: str, address: str = "", script: str = "", width: int = 1280) -> str:
    """The document after its scripts, and then `script`, have run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here to open the page with; `apt-get install chromium` brings it")
    file = folder / "page.html"
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    command = [
        CHROMIUM,
        *FLAGS,
        f"--window-size={width},900",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        f"file://{file}{address}",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout


def shown(document: str) -> list[str]:
    """Experiments of the visible rows, in order."""
    rows = re.findall(r'<tr data-states="[^>]*>.*?</tr>', document, re.DOTALL)
    visible = [row for row in rows if "hidden" not in row.partition(">")[0]]
    return [found[1] if (found := re.search(r"<code>net/(\w)", row)) else "other" for row in visible]


def test_rows_and_picture_are_there(tmp_path, text):
    script = "onload = () => document.title = document.querySelector('img').naturalWidth"
    document = rendered(tmp_path, text, script=script)
    assert shown(document) == ["a", "b", "c", "d", "e", "other"]
    assert "<title>960</title>" in document  # downscaled from 1600


def test_the_address_sorts_and_filters(tmp_path, text):
    document = rendered(tmp_path, text, "#sort=ours&order=descending&find=net/")
    assert shown(document) == ["b", "a", "c", "d", "e"]  # 45.5, 30.0, 5.0, and those without
    assert re.search(r'aria-sort="descending" data-key="ours"', document)


def test_clicks_sort_and_filter(tmp_path, text):
    script = """
      const click = selector => document.querySelector(selector).click();
      click('[data-key=ours] button'); click('[data-key=ours] button'); click('[data-key=ours] button');
      click('[value=unrun]');
    """
    document = rendered(tmp_path, text, script=script)
    assert shown(document) == ["c", "a", "b", "other"]  # ascending, descending, ascending
    assert document.count('aria-sort="none"') == 10  # of the six columns, all but one, in both tables


def test_a_system_leads_to_its_rows(tmp_path, text):
    script = "location.hash = document.querySelector('.matrix tr:last-child a').getAttribute('href')"
    document = rendered(tmp_path, text, script=f"{script}; obeyAddress()")
    assert shown(document) == ["other"]
    assert document.count("<section hidden") == 1


@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_wider_than_the_window(tmp_path, text, width):
    script = "const e = document.documentElement; document.title = `${innerWidth}: ${e.scrollWidth - e.clientWidth}`"
    assert f"<title>{width}: 0</title>" in rendered(tmp_path, text, script=script, width=width)
