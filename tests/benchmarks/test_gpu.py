"""`make gpu` without a GPU: it goes through, in its time, and goes on where it ended."""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import card
from benchmarks.gpu.budget import Budget, run_within
from benchmarks.gpu.pack import shrink
from segfolio.data.datasets import CamVid
from segfolio.errors import SegfolioError
from segfolio.ledger.rows import ledger
from tests.conftest import REPOSITORY
from tests.fake import camvid

CPU = torch.device("cpu")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A tiny U-Net that trains for two steps, and a table of two times, in a folder of experiments."""
    content = yaml.safe_load((REPOSITORY / "experiments/unet/camvid_240x180.yaml").read_text())
    content["model"]["init_args"]["architecture"]["init_args"] |= {"width": 2, "depth": 2}
    content["data"] |= {"num_workers": 0, "batch_size": 2, "train_transforms": []}
    content["trainer"] |= {"max_steps": 2, "val_check_interval": 1}
    for name, width, fps in (("camvid_240x180", 2, 20), ("wide", 4, 10)):
        content["model"]["init_args"]["architecture"]["init_args"]["width"] = width
        speed = {"table": "a table", "fps": fps, "size": [48, 64]}
        content["paper"]["speed"] = [speed] if name == "wide" else speed
        path = tmp_path / "experiments/unet" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    return tmp_path / "experiments"


@pytest.mark.slow
def test_it_goes_through_all_of_it_and_a_second_call_goes_on(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(gpu, "NETWORKS", ("unet",))
    monkeypatch.setattr(gpu, "PACKED", tmp_path / "CamVid")
    monkeypatch.setattr(card, "CASES", {name: card.CASES[name] for name in ("SegFormer-B0 (PerPixel)",)})
    monkeypatch.chdir(REPOSITORY)
    camvid.write(tmp_path / "CamVid", size=(48, 64))
    output = tmp_path / "out"
    call = ["--tiny", f"--experiments={small}", f"--output={output}", f"--runs={tmp_path / 'runs'}", "--minutes=8"]
    assert gpu.main(call) == 0, capfd.readouterr().out + "".join(p.read_text() for p in output.glob("*.log"))
    said = capfd.readouterr().out
    assert "tests/gpu: passed\na table: measured\n" in said
    assert "unet/camvid_240x180, seed 0: trained and tested\n" in said
    rows, withheld = ledger(small)
    assert {row.experiment: row.states for row in rows} == {
        "unet/camvid_240x180": ("no claim",),
        "unet/wide": ("unrun", "ratio"),
    }
    assert rows[0].seeds == (0,)
    assert withheld == []
    lines = [card.Line(*line) for line in json.loads((output / "card.json").read_text())]
    assert {(line.loop, line.mode) for line in lines} == {
        (loop, mode) for loop in ("inference", "training") for mode in card.TINY_MODES
    }
    assert "SegFormer-B0 (PerPixel)" in (output / "card.txt").read_text()
    carried = {str(path.relative_to(output / "ledger")) for path in (output / "ledger").rglob("*.json")}
    assert "unet/camvid_240x180.results.json" in carried
    assert len(carried) == 2
    before = (output / "card.json").read_bytes()
    assert gpu.main(call) == 0
    again = capfd.readouterr().out
    assert "tests/gpu: passed before, with this code\n" in again
    assert "a table: measured" not in again
    assert (output / "card.json").read_bytes() == before
    assert "seed 0 is finished" in (output / "trainings.log").read_text()


@pytest.mark.parametrize("name", card.CASES)
def test_every_family_is_measured_beside_its_peer(name):
    """Only of SAM transformers has no training."""
    inference, training = card.measured(name, "fp32", CPU, True, 1, 1)
    assert (inference.said, training.said) == ("", "")
    assert min(inference.ours, inference.peer, training.ours) > 0
    assert (training.peer is None) == (name == "SAM ViT-B (Promptable)")
    assert training.ours_gib > inference.ours_gib > 0


def test_what_fails_is_told_and_leaves_the_other_side(monkeypatch):
    def broken(tiny: bool) -> None:
        raise RuntimeError("out of memory\nand more")

    name = "SegFormer-B0 (PerPixel)"
    monkeypatch.setitem(card.CASES, name, card.CASES[name]._replace(peer=broken))
    inference, training = card.measured(name, "fp32", CPU, True, 1, 1)
    assert inference.ours > 0
    assert (inference.peer, training.peer, training.said) == (None, None, "peer: RuntimeError: out of memory")
    assert "SegFormer-B0 (PerPixel), fp32: peer: RuntimeError: out of memory" in card.shown([inference, training])


def test_without_time_the_card_leaves_its_lines_to_a_further_call(tmp_path, capsys):
    assert card.card(tmp_path / "card.json", CPU, True, Budget(0)) == []
    assert capsys.readouterr().out.count("no time is left for it") == len(card.CASES) * len(card.TINY_MODES)


def test_a_process_that_is_out_of_time_is_asked_to_end_and_what_it_started_is_waited_for(tmp_path):
    """The parent tells its child, which takes a while to save, and ends before it."""
    child = "import signal, sys, time\nsignal.signal(15, lambda *_: (time.sleep(0.3), print('saved'), sys.exit()))\n"
    child += "print('waits', flush=True)\ntime.sleep(60)"
    parent = f"import signal, subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
    parent += "signal.signal(15, lambda *_: (child.terminate(), sys.exit()))\nsignal.pause()"
    start, log = time.monotonic(), tmp_path / "log"
    assert run_within(Budget(25), [sys.executable, "-c", parent], log, grace=20) is None
    assert 4 < time.monotonic() - start < 20
    assert log.read_text() == "waits\nsaved\n"


def test_a_process_that_does_not_listen_is_killed(tmp_path):
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)"
    start = time.monotonic()
    assert run_within(Budget(6), [sys.executable, "-c", deaf], tmp_path / "log", grace=1) is None
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("code", "status"), [("", 0), ("raise SystemExit(3)", 3)])
def test_a_process_that_ends_in_time_gives_its_status(tmp_path, code, status):
    assert run_within(Budget(60), [sys.executable, "-c", code], tmp_path / "log", grace=1) == status


def test_camvid_is_made_small_in_its_own_layout(tmp_path):
    camvid.write(tmp_path / "CamVid", train=3, val=2, test=1, size=(360, 480))
    assert shrink(tmp_path / "CamVid", tmp_path / "small") == 6
    whole, small = (CamVid(tmp_path / name, "train") for name in ("CamVid", "small"))
    assert [sample.image_id for sample in small] == [sample.image_id for sample in whole]
    assert small[0].image.shape == (3, 180, 240)
    stored = cv2.imread(str(whole.pairs[0].mask), cv2.IMREAD_UNCHANGED)
    expected = cv2.resize(stored, (240, 180), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(cv2.imread(str(small.pairs[0].mask), cv2.IMREAD_UNCHANGED), expected)
    before = small.pairs[0].image.stat().st_mtime_ns
    shrink(tmp_path / "CamVid", tmp_path / "small")
    assert small.pairs[0].image.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there is no CUDA device here; --tiny goes through all of it on a CPU"),
        (["--minutes=0", "--tiny"], "--minutes is 0; give more than 0, 9 is the usual"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, arguments, says):
    assert gpu.main([*arguments, f"--output={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"make gpu: {says}\n"


def test_without_camvid_it_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PACKED", tmp_path)
    monkeypatch.setattr(gpu, "SAMPLE", tmp_path)
    with pytest.raises(SegfolioError, match="make it by `make gpu-pack CAMVID=PATH/TO/CamVid`"):
        gpu._camvid(gpu._parsed([f"--output={tmp_path}"]))
