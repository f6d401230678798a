"""MATLAB files of both kinds, and what is said of others."""

import sys

import numpy as np
import pytest
import scipy.io

from segfolio.data.formats.matlab import as_ids, is_hdf5, open_hdf5, read_mat
from segfolio.errors import SegfolioError
from tests.fake.matlab import write_hdf5

MAP = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.fixture
def old(tmp_path):
    scipy.io.savemat(tmp_path / "old.mat", {"S": MAP})
    return tmp_path / "old.mat"


@pytest.fixture
def new(tmp_path):
    write_hdf5(tmp_path / "new.mat", {"S": MAP})
    return tmp_path / "new.mat"


def test_both_kinds_hold_the_same(old, new):
    assert (is_hdf5(old), is_hdf5(new)) == (False, True)
    assert np.array_equal(read_mat(old, "S")["S"], MAP)
    with open_hdf5(new, "S") as file:
        assert np.array_equal(file["S"][()].T, MAP)


def test_what_cannot_be_read_is_said(old, new, tmp_path):
    def fails(read, path, message):
        with pytest.raises(SegfolioError, match=message):
            read(path)

    def opened(path):
        with open_hdf5(path, "S"):
            pass

    fails(lambda path: read_mat(path, "S", "names"), old, r"old\.mat lacks the variable names; expected")
    fails(lambda path: read_mat(path, "S"), new, r"new\.mat is a MATLAB 7\.3 file, expected an older")
    fails(lambda path: read_mat(path, "S"), tmp_path / "no.mat", r"no\.mat is missing")
    fails(opened, old, r"old\.mat is missing or no whole MATLAB 7\.3 file")
    fails(opened, tmp_path / "no.mat", r"no\.mat is missing")
    old.write_bytes(old.read_bytes()[:150])
    fails(lambda path: read_mat(path, "S"), old, r"old\.mat (is missing or no whole MATLAB file|lacks the variable S)")


def test_without_h5py_the_sentence_says_what_to_install(new, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SegfolioError, match=r"new\.mat is read with h5py, .* run `pip install h5py`"), open_hdf5(new):
        pass


def test_ids_are_whole_numbers_of_16_bits():
    assert as_ids(np.array([[0.0, 894.0]]), "x").tolist() == [[0, 894]]
    for values in (np.array([[0.5]]), np.array([[-1]]), np.array([[70000]]), np.array([["a"]])):
        with pytest.raises(SegfolioError, match=r"x holds values that are no class ids"):
            as_ids(values, "x")
