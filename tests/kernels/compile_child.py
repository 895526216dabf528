"""Compiles every kernel for a GPU that need not be here: `python compile_child.py 90` for sm_90, each as runs use it
most, `python compile_child.py 90 every` in every variant.

The entry points are called as runs call them, on CPU tensors; each launch becomes Triton's own `warmup`, which takes
types, alignment and options from the launch's arguments and stops once the machine code is there. `Driver` answers
what Triton asks of a driver. On stdout: a JSON line for each kernel compiled, with the registers of a thread and the
bytes it spills where Triton's own cuobjdump is there. TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import cleanctl_kernels
import torch
import triton
from cleanctl_kernels.mixture import Ragged
from cleanctl_kernels.pixels import Window, whole
from cleanctl_kernels.prompts import prompt_bank
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
T = TypeVar("T")


class Driver:
    """What Triton asks of a driver before a launch."""

    def __init__(self, arch: int) -> None:
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiling:
    """Stands where a kernel stands; a launch compiles it."""

    case = ""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            compiled = self.kernel.warmup(*arguments, grid=grid, **options)
            record = {
                "kernel": self.kernel.fn.__name__,
                "case": Compiling.case,
                "options": options,
                "shared": compiled.metadata.shared,
                **resources(compiled.asm["cubin"]),
                "ttir": compiled.asm["ttir"],
                "ptx": compiled.asm["ptx"],
            }
            print(json.dumps(record))  # noqa: T201

        return launch


def resources(cubin: bytes) -> dict[str, int | None]:
    """registers of a thread, and spilled, bytes of its stack; None where nobody can say."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.is_file():
        return {"registers": None, "spilled": None}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return {"registers": found["REG"], "spilled": found["STACK"] + found["LOCAL"]}


def kernels() -> list[tuple[Any, str]]:
    """(module, name) of all that is launched; what a kernel calls has a name that does not end in `_kernel`."""
    found = []
    for info in pkgutil.iter_modules(cleanctl_kernels.__path__):
        if info.name.endswith("_triton"):
            module = importlib.import_module(f"cleanctl_kernels.{info.name}")
            found += [
                (module, name)
                for name, value in vars(module).items()
                if isinstance(value, triton.JITFunction) and name.endswith("_kernel")
            ]
    return found


def variants(cases: Sequence[T]) -> Sequence[T]:
    """The first, or every one."""
    return cases if "every" in sys.argv[2:] else cases[:1]


def zeroshot() -> None:
    from cleanctl_kernels.zeroshot_triton import zeroshot_stats_triton

    generator = torch.Generator().manual_seed(0)
    cases = [(8, dim, torch.float16, 0.07) for dim in (512, 768, 1024)]
    cases += [(8, 512, dtype, 0.07) for dtype in FLOATS[1:]]
    cases += [(1, 512, torch.float16, 0.07), (2, 512, torch.float16, 0.07), (8, 512, torch.float16, 0.01)]
    cases += [(1, 37, torch.float16, 0.07), (129, 768, torch.float16, 0.07)]
    for prompts, dim, dtype, temperature in variants(cases):
        Compiling.case = f"{prompts} prompts a class, {dim} dimensions, {dtype}, temperature {temperature}"
        class_P = torch.arange(260).repeat_interleave(prompts)
        text_PD = torch.nn.functional.normalize(torch.randn(len(class_P), dim, generator=generator))
        bank = prompt_bank(text_PD, class_P, num_classes=260, temperature=temperature)
        zeroshot_stats_triton(torch.randn(64, dim).to(dtype), torch.zeros(64, dtype=torch.int64), bank)


def mixture() -> None:
    from cleanctl_kernels.mixture_triton import mixture_em_triton

    for dtype in variants((torch.float64, torch.float32)):
        Compiling.case = str(dtype)
        mixture_em_triton(Ragged(torch.rand(96).to(dtype), torch.tensor([0, 64, 96])))


def pixels() -> None:
    from cleanctl_kernels.pixels_triton import pixels_to_input_triton

    pixel = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    window: Window = whole(pixel)
    for dtype in variants(FLOATS):
        Compiling.case = str(dtype)
        pixels_to_input_triton(pixel, torch.zeros(3), torch.ones(3), window, dtype=dtype)


def softmax() -> None:
    from cleanctl_kernels.softmax_triton import softmax_residual_triton

    for rows in variants((64, 37)):
        Compiling.case = f"{rows} rows"
        target, weight = torch.zeros(rows, dtype=torch.int64), torch.ones(rows)
        softmax_residual_triton(torch.zeros(100, rows), torch.zeros(100), target, weight)


def resize() -> None:
    from cleanctl_kernels.resize import INTERPOLATIONS
    from cleanctl_kernels.resize_triton import resize_crops_triton
    from cleanctl_kernels.types import Cut

    image = torch.zeros(3, 40, 50, dtype=torch.uint8)
    for name in variants(INTERPOLATIONS):
        Compiling.case = name
        resize_crops_triton([image], [Cut((0, 0, 50, 40), 28, 22, 3, 0)], size=22, fill=0, interpolation=name)


def tower() -> None:
    from cleanctl_kernels.tower_triton import layer_norm_triton, quick_gelu_triton

    for dtype in variants(FLOATS):
        Compiling.case = str(dtype)
        layer_norm_triton(torch.zeros(4, 768, dtype=dtype), torch.ones(768), torch.zeros(768), eps=1e-5)
        quick_gelu_triton(torch.zeros(4, 3072, dtype=dtype))


def main() -> None:
    driver.set_active(Driver(int(sys.argv[1])))
    found = kernels()
    for module, name in found:
        setattr(module, name, Compiling(getattr(module, name)))
    for case in (zeroshot, mixture, pixels, softmax, resize, tower):
        case()
    print(json.dumps({"kernels": sorted(name for _, name in found), "triton": triton.__version__}))  # noqa: T201


if __name__ == "__main__":
    main()
