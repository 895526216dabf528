"""Compiles every kernel for a GPU that need not be here: `python compile_child.py 90` for sm_90.

The entry points are called as runs call them, on CPU tensors; each launch becomes Triton's own `warmup`, which takes
types, alignment and options from the launch's arguments and stops once the machine code is there. `Driver` answers what
Triton asks of a driver. On stdout: a JSON line for each kernel compiled. TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from typing import Any

import cleanctl_kernels
import torch
import triton
from cleanctl_kernels.mixture import Ragged
from cleanctl_kernels.pixels import Window, whole
from cleanctl_kernels.prompts import prompt_bank
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


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
                "ttir": compiled.asm["ttir"],
                "ptx": compiled.asm["ptx"],
            }
            print(json.dumps(record))  # noqa: T201

        return launch


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


def zeroshot() -> None:
    from cleanctl_kernels.zeroshot_triton import zeroshot_stats_triton

    generator = torch.Generator().manual_seed(0)
    for prompts, dim, dtype in [(8, 512, d) for d in FLOATS] + [(1, 37, torch.float16), (129, 768, torch.float16)]:
        Compiling.case = f"{prompts} prompts a class, {dim} dimensions, {dtype}"
        class_P = torch.arange(20).repeat_interleave(prompts)
        text_PD = torch.randn(len(class_P), dim, generator=generator)
        bank = prompt_bank(text_PD, class_P, num_classes=20, temperature=0.07)
        zeroshot_stats_triton(torch.randn(64, dim).to(dtype), torch.zeros(64, dtype=torch.int64), bank)


def mixture() -> None:
    from cleanctl_kernels.mixture_triton import mixture_em_triton

    for dtype in (torch.float64, torch.float32):
        Compiling.case = str(dtype)
        mixture_em_triton(Ragged(torch.rand(96).to(dtype), torch.tensor([0, 64, 96])))


def pixels() -> None:
    from cleanctl_kernels.pixels_triton import pixels_to_input_triton

    pixel = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    window: Window = whole(pixel)
    for dtype in FLOATS:
        Compiling.case = str(dtype)
        pixels_to_input_triton(pixel, torch.zeros(3), torch.ones(3), window, dtype=dtype)


def main() -> None:
    driver.set_active(Driver(int(sys.argv[1])))
    found = kernels()
    for module, name in found:
        setattr(module, name, Compiling(getattr(module, name)))
    for case in (zeroshot, mixture, pixels):
        case()
    print(json.dumps({"kernels": sorted(name for _, name in found), "triton": triton.__version__}))  # noqa: T201


if __name__ == "__main__":
    main()
