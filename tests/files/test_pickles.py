"""Pickles are data: what they hold is read, what they ask to run is not."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from cleanctl.errors import InputError
from cleanctl.files.pickles import array_of, read_pickle, read_torch_pickle, texts, whole_numbers


def read(data: bytes) -> dict:
    return read_pickle(data, "some.pkl", page="its page")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_python_3_comes_back(protocol):
    value = {
        "a": [1, 2**40, -3],
        "b": np.arange(6, dtype=np.int64).reshape(2, 3),
        "c": ["x", "ü"],
        "d": (1, None),
        4: 5,
    }
    found = read(pickle.dumps({**value, 4: 5}, protocol=protocol))
    assert list(found) == ["a", "b", "c", "d"]
    assert whole_numbers(found["a"]).tolist() == [1, 2**40, -3]
    assert (array_of(found["b"]).value == value["b"]).all()
    assert array_of(found["b"]).value.shape == (2, 3)
    assert texts(found["c"]) == ["x", "ü"]
    assert found["d"] == (1, None)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "|u1", "<u2"])
def test_arrays_of_both_numpy_names_and_of_each_byte_order(core, dtype):
    values = np.arange(250, dtype=dtype)
    data = pickle.dumps({"a": values, "s": [values[7]]}, protocol=2)
    data = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
    found = read(data)
    assert whole_numbers(found["a"]).tolist() == values.tolist()
    assert whole_numbers(found["s"]).tolist() == [7]


def test_an_array_in_another_order_or_of_other_things_is_none():
    square = np.arange(6).reshape(2, 3)
    odd = {"fortran": np.asfortranarray(square), "objects": np.array([{}, 1]), "real": np.ones(2), "record": [b"x"]}
    found = read(pickle.dumps(odd))
    assert [array_of(found[name]) for name in odd] == [None] * 4
    assert whole_numbers(found["record"]) is None
    assert texts([1]) is None
    assert whole_numbers([1.5]) is None
    assert whole_numbers([True]) is None
    assert whole_numbers([2**70]) is None


class Command:
    """A pickle of one runs a program when Python reads it."""

    def __init__(self, function, *words):
        self.call = (function, words)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_runs_nothing_and_is_told(tmp_path, protocol):
    mark = tmp_path / "ran"
    attacks = [
        (Command(os.system, f"touch {mark}"), "posix.system"),
        (Command(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (Command(getattr, "x", "upper"), "getattr"),
        (Command(np.fromfile, str(mark)), "fromfile"),
        (Command(copyreg._reconstructor, dict, dict, None), "_reconstructor"),
    ]
    for attack, name in attacks:
        for value in (attack, {"data": attack}, {"labels": [1, attack]}):
            with pytest.raises(InputError, match=rf"'some\.pkl' is not read: it asks for .*{name}") as caught:
                read(pickle.dumps(value, protocol=protocol))
            assert "A pickle can run any program" in str(caught.value)
            assert "its page" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(S'true'\nios\nsystem\n.",
        b"cnumpy\nndarray\n(S'true'\no.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ of what is no class
        b"P1\n.",
        b"\x82\x01.",
    ],
    ids=["reduce", "stack global", "inst", "obj", "dotted", "dotted in 4", "newobj", "persistent", "extension"],
)
def test_no_opcode_reaches_a_function(body):
    with pytest.raises(InputError, match=r"some\.pkl"):
        read(body)


def test_allowed_names_called_in_odd_ways_do_nothing():
    """Each of NumPy's own functions would allocate, crash or raise here."""
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L9999999999999999L\nlS'b'\ntR"
    assert array_of(read(b"(S'a'\n" + huge + b"d.")["a"]) is None
    built = b"(S'a'\ncnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntbd."
    assert array_of(read(built)["a"]) is None
    with pytest.raises(InputError):
        read(b"(S'a'\ncnumpy\ndtype\n(S'x'\nI1\nsbd..")  # a stack that does not add up


def test_bytes_that_a_pickle_promises_and_does_not_hold_take_no_memory():
    for opcode, size in ((b"\x96", 8), (b"\x8e", 8), (b"B", 4), (b"\x8d", 8), (b"X", 4), (b"\x8b", 4)):
        with pytest.raises(InputError):
            read(b"\x80\x05}\x8c\x01a" + opcode + (1 << (8 * size - 2)).to_bytes(size, "little") + b"abcs.")
    tracemalloc.start()
    with pytest.raises(InputError):
        read(b"\x80\x05}\x8c\x01a\x96" + (1 << 33).to_bytes(8, "little") + b"abcs.")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_pickle_is_told_by_name(share):
    data = pickle.dumps({"a": list(range(500)), "b": np.arange(500)}, protocol=2)
    with pytest.raises(InputError, match=r"'some\.pkl' is damaged or no pickle.*its page"):
        read(data[: int(share * len(data))])


def test_a_pickle_of_no_dict_is_told():
    with pytest.raises(InputError, match="holds no dict"):
        read(pickle.dumps([1]))


def test_torch_files_with_arrays_are_read_and_those_with_code_or_tensors_are_not(tmp_path):
    import torch

    torch.save({"clean_label": np.arange(300), "text": "x"}, tmp_path / "a.pt")
    found = read_torch_pickle((tmp_path / "a.pt").read_bytes(), "a.pt", page="p")
    assert whole_numbers(found["clean_label"]).tolist() == list(range(300))
    torch.save({"clean_label": torch.arange(3)}, tmp_path / "b.pt")
    with pytest.raises(InputError, match=r"b\.pt.*(asks for torch|outside the pickle)"):
        read_torch_pickle((tmp_path / "b.pt").read_bytes(), "b.pt", page="p")
    mark = tmp_path / "ran"
    torch.save({"clean_label": Command(os.system, f"touch {mark}")}, tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"c\.pt.*asks for posix\.system"):
        read_torch_pickle((tmp_path / "c.pt").read_bytes(), "c.pt", page="p")
    assert not mark.exists()


def test_a_file_that_torch_did_not_write_is_told():
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("x/other", b"")
    for data in (b"no zip", b"", empty.getvalue(), empty.getvalue()[:-9]):
        with pytest.raises(InputError, match=r"'x\.pt' is no zip file"):
            read_torch_pickle(data, "x.pt", page="p")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_whatever_byte_is_wrong_only_an_input_error_comes(protocol):
    rng = np.random.default_rng(protocol)
    whole = pickle.dumps(
        {"labels": [1, 300], "data": np.zeros((2, 3), np.uint8), "t": (None, {1.5})}, protocol=protocol
    )
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", whole)
    refused = 0
    for data, reader in ((whole, read_pickle), (zipped.getvalue(), read_torch_pickle)):
        for _ in range(400):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[rng.integers(0, len(damaged), rng.integers(1, 5))] = rng.integers(0, 256)
            try:
                for value in reader(damaged.tobytes(), "f", page="p").values():
                    whole_numbers(value)
                    assert array_of(value) is None or texts(value) is None
            except InputError:
                refused += 1
    assert refused > 200
