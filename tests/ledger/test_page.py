"""The page, as a browser shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from segfolio.ledger.page import page
from segfolio.ledger.rows import ledger
from tests.ledger.conftest import write_experiment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000"),
]


@pytest.fixture
def text(tmp_path, replicated) -> str:
    """Four experiments: 30.0 against 46.4, 45.0 against 46.4, and one that was not run; a picture of the first."""
    import cv2

    claim = {"expected": {"test/mIoU": 0.464}, "tolerance": 0.02}
    replicated(write_experiment(tmp_path, "net/a", **claim), 0.30)
    replicated(write_experiment(tmp_path, "net/b", **claim), 0.45, 0.46)
    replicated(write_experiment(tmp_path, "net/c", row="<b>bold</b>"), 0.05)
    write_experiment(tmp_path, "net/d", **claim)
    pictures = tmp_path / "runs/net/a/seed0/test/pictures/test"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "one.png"), np.full((300, 1600, 3), 90, np.uint8))
    return page(ledger(tmp_path / "experiments")[0])


def test_it_is_whole_by_itself(text):
    assert set(re.findall(r'(?:src|href)="(\w+:)', text)) == {"data:", "https:"}  # a picture, and links to arXiv
    assert not re.search(r"<link|<script src|@import|url\(", text)
    assert text.count("data:image/webp;base64,") == 1
    assert "<!-- rows" not in text


def test_text_is_escaped(text):
    assert "<p>&lt;b&gt;bold&lt;/b&gt;</p>" in text
    assert "<li>none &lt; some</li>" in text


def rendered(folder: Path, text: str, address: str = "", script: str = "") -> str:
    """The document after its scripts, and then `script`, have run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here to open the page with; `apt-get install chromium` brings it")
    file = folder / "page.html"
    file.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{file}{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout


def shown(document: str) -> list[str]:
    """Experiments of the visible rows, in order."""
    rows = re.findall(r"<tr data-state=[^>]*>.*?</tr>", document, re.DOTALL)
    return [re.search(r"<code>net/(\w)", row)[1] for row in rows if "hidden" not in row.partition(">")[0]]


def test_rows_and_picture_are_there(tmp_path, text):
    script = "onload = () => document.title = document.querySelector('img').naturalWidth"
    document = rendered(tmp_path, text, script=script)
    assert shown(document) == ["a", "b", "c", "d"]
    assert "<title>960</title>" in document  # downscaled from 1600


def test_the_address_sorts_and_filters(tmp_path, text):
    document = rendered(tmp_path, text, "#sort=ours&order=descending&find=net/")
    assert shown(document) == ["b", "a", "c", "d"]  # 45.5, 30.0, 5.0, none
    assert re.search(r'aria-sort="descending" data-key="ours"', document)


def test_clicks_sort_and_filter(tmp_path, text):
    script = """
      const click = selector => document.querySelector(selector).click();
      click('[data-key=ours] button'); click('[data-key=ours] button'); click('[data-key=ours] button');
      click('[value=unrun]');
    """
    document = rendered(tmp_path, text, script=script)
    assert shown(document) == ["c", "a", "b"]  # ascending, descending, ascending
    assert document.count('aria-sort="none"') == 6
