"""Every kernel compiles for the GPUs that runs are sent to, and computes in the precision that is meant.

The interpreter, in which the other tests run, accepts what the compiler refuses; so this needs no GPU, but a compiler.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "kernels" / "cleanctl_kernels"
SHARED_BYTES = {90: 232_448, 80: 166_912}  # what a program may hold on an H100 and an A100
SPILLS = {"_stats_kernel": 160}  # bytes of a thread, at a low temperature or with few prompts; behind the products
USUAL = re.compile("8 prompts a class, .*float16, temperature 0.07")
IN_FLOAT64 = "_em_kernel"
FLOAT32_RANGE = (2.0**-126, 3.4028234663852886e38)  # normal numbers


# What runs use most for one architecture; slow: every variant, for both.
ASKED = [pytest.param((90,), id="sm_90")]
ASKED += [pytest.param((arch, "every"), id=f"sm_{arch}-every", marks=pytest.mark.slow) for arch in SHARED_BYTES]


@pytest.fixture(scope="module", params=ASKED)
def compiled(request, tmp_path_factory):
    """(architecture, a record for each kernel and case); Triton keeps what it compiled until a kernel changes."""
    arch = request.param[0]
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    kept = getattr(request.config, "cache", None)  # there is none under -p no:cacheprovider
    environment["TRITON_CACHE_DIR"] = str(kept.mkdir("triton") if kept else tmp_path_factory.mktemp("triton"))
    command = [sys.executable, str(HERE / "compile_child.py"), *map(str, request.param)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    *records, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted({record["kernel"] for record in records}) == end["kernels"] != [], "a kernel that no case compiles"
    return arch, records


def test_every_kernel_compiles_and_fits(compiled):
    arch, records = compiled
    for record in records:
        assert f".target sm_{arch}" in record["ptx"]
        assert record["shared"] <= SHARED_BYTES[arch], (record["kernel"], record["case"])


def test_registers_suffice(compiled):
    """A spilled accumulator is written and read in every step of a product."""
    arch, records = compiled
    if arch != 90 or records[0]["registers"] is None:
        pytest.skip("tiles are cut for an H100, and Triton's tools have to be there")
    for record in records:
        print(*(record[key] for key in ("kernel", "case", "registers", "spilled", "shared")))  # noqa: T201
        most = 0 if USUAL.fullmatch(record["case"]) else SPILLS.get(record["kernel"], 0)
        assert record["spilled"] <= most, (record["kernel"], record["case"], record["registers"])


def test_no_kernel_computes_in_another_precision_than_is_meant(compiled):
    for record in compiled[1]:
        if record["kernel"] != IN_FLOAT64:
            found = re.findall(r".*\bf64\b.*", record["ttir"] + record["ptx"])
            assert not found, (record["kernel"], record["case"], found[:3])
        elif record["case"] == "torch.float64":
            assert not re.findall(r".*\bf32\b.*", record["ttir"])


def test_every_launch_says_whether_products_and_sums_are_fused(compiled):
    """Triton's default changes with its version."""
    assert {record["options"].get("enable_fp_fusion") for record in compiled[1]} == {True}


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*_triton.py")), ids=lambda path: path.stem)
def test_no_literal_is_outside_the_range_of_float32(path):
    """Triton 3.2 to 3.8 make such a literal fp64, and with it all that is computed from it."""
    low, high = FLOAT32_RANGE
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value != 0.0:
            assert low <= node.value <= high, f"{path.name}:{node.lineno}: {node.value}"
