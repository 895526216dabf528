"""Tables of very many rows: no Python object is held for each of them, and labels are joined by key all the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cleanctl.datasets import columns as module
from cleanctl.datasets.columns import read_keys, read_labels
from cleanctl.datasets.label_table import read_table
from cleanctl.errors import InputError
from cleanctl.files import keys as keys_module


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_KEYS", 4)
    monkeypatch.setattr(keys_module, "BLOCK_KEYS", 4)


def table_of(path: Path, rows, *, columns="path,label,split"):
    path.write_text("".join(f"{line}\n" for line in [columns, *(",".join(row) for row in rows)]))
    return path


def shuffled(count, seed=0):
    return [(f"./n{row % 7}/{row:03d}.jpg", f"c{row % 3}", ("train", "val")[row % 2]) for row in order_of(count, seed)]


def order_of(count, seed=0):
    return np.random.default_rng(seed).permutation(count).tolist()


def test_a_table_in_any_order_is_read_across_blocks(tmp_path, small_blocks):
    rows = shuffled(23)
    table = read_table(table_of(tmp_path / "t.csv", rows), root=".", label_column="label", truth_column=None)
    assert table.keys.tolist() == [path.removeprefix("./") for path, _, _ in rows]
    assert table.label.tolist() == [label for _, label, _ in rows]
    assert table.split.tolist() == [split for _, _, split in rows]
    assert [table.keys[row] for row in table.order_N] == sorted(table.keys)
    assert len({id(label) for label in table.label}) == 3  # each name once in memory


def test_the_first_repetition_in_the_file_is_named_whatever_lies_between(tmp_path, small_blocks):
    rows = shuffled(23)
    rows = [*rows, rows[11], rows[3], rows[11]]
    with pytest.raises(InputError, match=r"twice, in rows 12 and 24 \(3 rows are repetitions\)"):
        read_table(table_of(tmp_path / "t.csv", rows), root=".", label_column="label", truth_column=None)


def test_labels_with_keys_are_joined_by_key_across_blocks(tmp_path, small_blocks):
    labels = table_of(tmp_path / "l.csv", [(f"k{row:02d}", f"c{row % 3}") for row in order_of(30)], columns="key,label")
    keys = tmp_path / "keys.txt"
    keys.write_text("".join(f" k{row:02d}\n" for row in order_of(30, seed=1)[:22]) + "\n\n")
    wanted = read_keys(keys)
    column = read_labels(labels, "--labels", "label").in_order_of(wanted, labels)
    assert column.value_N.tolist() == [f"c{int(key[1:]) % 3}" for key in wanted]
    row = order_of(30).index(int(wanted[0][1:]))
    assert column.where(0) == f"Row {row + 1} of {str(labels)!r}"
    with pytest.raises(InputError, match=r"no row for 1 of 1 keys, e\.g\. 'x'"):
        read_labels(labels, "--labels", "label").in_order_of(keys_module.Keys.of(["x"]), labels)


def test_labels_that_name_a_key_twice_are_not_joined(tmp_path):
    labels = table_of(tmp_path / "l.csv", [("a", "x"), ("b", "x"), ("a", "y")], columns="key,label")
    with pytest.raises(InputError, match="names the key 'a' twice"):
        read_labels(labels, "--labels", "label").in_order_of(keys_module.Keys.of(["b", "a"]), labels)


def test_an_empty_line_among_keys_is_named_and_those_at_the_end_are_none(tmp_path, small_blocks):
    file = tmp_path / "keys.txt"
    file.write_text("\ufeffa\nb\nc\nd\n\n\n\n\n\n\n")
    assert read_keys(file).tolist() == ["a", "b", "c", "d"]
    file.write_text("a\nb\nc\nd\n\n\n\n\ne\n")
    with pytest.raises(InputError, match="4 empty values, the first in row 5"):
        read_keys(file)


CHILD = """
    import re, sys
    from pathlib import Path
    import numpy as np, pyarrow.compute, pyarrow.csv
    from cleanctl.datasets.columns import read_keys, read_labels
    from cleanctl.datasets.label_table import read_table

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    before = peak()
    table = read_table(folder / "t.csv", root=".", label_column="label", truth_column=None)
    labels = read_labels(folder / "t.csv", "--labels", "label").in_order_of(read_keys(folder / "k.txt"), folder)
    assert len(table) == len(labels.value_N) == rows
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_row_takes_no_string_of_its_own(tmp_path):
    rows = 300_000
    with open(tmp_path / "t.csv", "w") as table, open(tmp_path / "k.txt", "w") as keys:
        table.write("path,label,split\n")
        for row in range(rows):
            key = f"train/n{row % 1000:08d}/{row:012d}.jpg"
            table.write(f"{key},class {row % 1000:03d},train\n")
            keys.write(f"{key}\n")
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), str(rows)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # 158 MiB, most of it pyarrow's reading of the CSV and one block of strings. A list of str for each column took 273.
    assert float(run.stdout) < 205
