"""What `cleanctl doctor` really tries, in a process of its own: `python -P -m cleanctl.doctor.probes NAME…`.

Each probe imports one thing and uses it once, on something tiny. On stdout: a JSON line `{"begin": NAME}` before a
probe and its `Found` after it, so that the parent knows which probe a crash belongs to. Nothing is left on disk.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from cleanctl.runtime import ending_promptly


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a probe saw. state: "ok", "absent" (not installed, or no such hardware), "broken" (there and unusable) or
    "odd" (works, with a catch).
    """

    name: str
    state: str
    says: str
    models: tuple[dict[str, Any], ...] = ()


class Absent(Exception):
    """There is no such hardware here; the text says how one can tell."""


class Odd(Exception):
    """It works, with the catch that the text tells."""


def run_probe(name: str) -> Found:
    try:
        says = PROBES[name]()
    except Absent as exc:
        return Found(name=name, state="absent", says=str(exc))
    except Odd as exc:
        return Found(name=name, state="odd", says=str(exc))
    except ModuleNotFoundError as exc:
        gone = exc.name or str(exc)
        if gone.partition(".")[0] == MODULES.get(name, name):
            return Found(name=name, state="absent", says="not installed")
        return Found(name=name, state="broken", says=f"needs the module {gone}, which is not installed")
    except Exception as exc:  # noqa: BLE001  whatever a library does at import is the finding
        lines = str(exc).strip().splitlines()
        return Found(name=name, state="broken", says=f"{type(exc).__name__}: {lines[0] if lines else 'no text'}")
    if isinstance(says, tuple):
        return Found(name=name, state="ok", says=says[0], models=says[1])
    return Found(name=name, state="ok", says=says)


# ---- what every run needs


def probe_torch() -> str:
    import torch

    assert (torch.ones(8, 8) @ torch.ones(8, 8)).sum().item() == 512
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"{torch.__version__.partition('+')[0]}, {built}"


def probe_torchvision() -> str:
    import torch
    import torchvision

    # A wheel that does not match torch imports, and fails at its first compiled operator.
    kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0]), 0.5)
    assert len(kept) == 1
    return str(torchvision.__version__)


def probe_open_clip() -> str:
    import open_clip

    return f"{open_clip.__version__}, {len(open_clip.list_models())} architectures"


def probe_weights() -> tuple[str, tuple[dict[str, Any], ...]]:
    from cleanctl.clip.models import list_offline_models

    models = tuple(
        {"model": m.model, "pretrained": m.pretrained, "path": str(m.path), "bytes": m.size}
        for m in list_offline_models()
    )
    if not models:
        raise Absent("none on this disk; cleanctl embed needs some")
    first = " ".join(str(part) for part in (models[0]["model"], models[0]["pretrained"]) if part)
    return (first + (f" and {len(models) - 1} more" if len(models) > 1 else ""), models)


def probe_zarr() -> str:
    import numpy as np
    import zarr

    array = zarr.create_array(store=zarr.storage.MemoryStore(), shape=(8, 4), chunks=(4, 4), shards=(8, 4), dtype="f2")
    array[:] = np.ones((8, 4))
    assert float(np.asarray(array[5:6], dtype=np.float32).sum()) == 4
    return f"{zarr.__version__}, a sharded array written and read"


def probe_scikit_learn() -> str:
    import sklearn
    from sklearn.linear_model import LogisticRegression

    assert LogisticRegression().fit([[0.0], [1.0]], [0, 1]).predict([[1.0]])[0] == 1
    return str(sklearn.__version__)


def probe_pyarrow() -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"key": ["a"]}), io.BytesIO())
    return str(pyarrow.__version__)


# ---- what makes runs faster


def probe_cuda() -> str:
    import torch

    if not torch.version.cuda:
        raise Absent("torch is built without it")
    if not torch.cuda.is_available():
        if os.path.exists("/dev/nvidia0") or os.path.exists("/dev/nvidiactl"):
            raise RuntimeError(f"a GPU is there, but torch (CUDA {torch.version.cuda}) cannot use its driver")
        raise Absent("no NVIDIA GPU on this machine")
    free, total = torch.cuda.mem_get_info()
    assert (torch.ones(8, 8, device="cuda").half() @ torch.ones(8, 8, device="cuda").half()).sum().item() == 512
    major, minor = torch.cuda.get_device_capability()
    name, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    more = f", {count} of them" if count > 1 else ""
    return f"{name}{more}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, sm_{major}{minor}, {_driver()}"


def _driver() -> str:
    try:
        with open("/proc/driver/nvidia/version") as file:
            words = file.readline().split()
    except OSError:
        return "driver version unknown"
    return "driver " + next((word for word in words if word[0].isdigit() and "." in word), "version unknown")


def probe_bf16() -> str:
    from cleanctl.runtime import has_native_bf16

    if not has_native_bf16():
        raise Absent("not in this processor; the encoder runs in fp32 on it")
    return "the processor multiplies bfloat16"


def probe_triton() -> str:
    import torch

    if not torch.cuda.is_available():
        # Read when triton is imported: without a GPU the kernels run interpreted, which tests use.
        os.environ["TRITON_INTERPRET"] = "1"
    import triton
    import triton.language as tl

    @triton.jit
    def double(source, target, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.arange(0, BLOCK)
        tl.store(target + at, 2 * tl.load(source + at))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source, target = torch.ones(16, device=device), torch.zeros(16, device=device)
    double[(1,)](source, target, BLOCK=16)
    assert target.sum().item() == 32
    return f"{triton.__version__}, " + ("a kernel compiled and ran" if device == "cuda" else "interpreted: no GPU")


def probe_ffcv() -> str:
    import numpy as np
    from PIL import Image

    if importlib.util.find_spec("ffcv") is None:
        raise Absent("not installed")
    import cleanctl.images.ffcv_import  # noqa: F401  without what FFCV compiles at import, which takes seconds

    from ffcv.libffcv import imdecode  # isort: skip

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(buffer, "JPEG", quality=95)
    pixels = np.zeros((16, 16, 3), np.uint8)
    imdecode(np.frombuffer(buffer.getvalue(), np.uint8), pixels, 16, 16, 16, 16, 0, 0, 1, 1, False, False)
    assert abs(int(pixels[8, 8, 0]) - 200) < 6, "its JPEG decoder gives other pixels"
    return f"{_version('ffcv')}, a JPEG decoded"


def probe_nvjpeg() -> str:
    import torch
    from PIL import Image
    from torchcodec.decoders import decode_jpeg

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "JPEG", quality=95)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (image_CHW,) = decode_jpeg([buffer.getvalue()], mode="RGB", device=device)
    assert abs(int(image_CHW[0, 32, 32]) - 200) < 6, "its JPEG decoder gives other pixels"
    return f"torchcodec {_version('torchcodec')}, " + ("a JPEG decoded" if device == "cuda" else "no GPU to decode on")


def probe_faiss() -> str:
    both = [name for name in ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12") if _version(name)]
    if len(both) > 1:
        raise RuntimeError(f"{' and '.join(both)} are both installed, and each overwrites files of the other")
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(4)
    index.add(np.eye(4, dtype=np.float32))
    assert index.search(np.eye(4, dtype=np.float32)[2:3], 1)[1][0, 0] == 2
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return f"{faiss.__version__}, " + (f"sees {gpus} GPU" if gpus else "searches on the processor")


def probe_cuml() -> str:
    import torch

    cuml = importlib.import_module("cuml")
    if not torch.cuda.is_available():
        raise Odd(f"{cuml.__version__} is installed, but there is no GPU for it")
    cuml.LogisticRegression().fit(torch.eye(4).numpy(), torch.arange(4).float().numpy())
    return f"{cuml.__version__}, a logistic regression fitted"


def probe_remote() -> str:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe_file("/doctor/a", b"a")
    assert system.cat_file("/doctor/a") == b"a"
    system.rm("/doctor", recursive=True)
    buckets = {"s3fs": "s3", "gcsfs": "gs", "adlfs": "az"}
    there = [scheme for package, scheme in buckets.items() if _version(package)]
    if not there:
        raise Odd(f"fsspec {fsspec.__version__}, but no package for buckets (s3fs, gcsfs, adlfs)")
    return f"fsspec {fsspec.__version__}, reads {', '.join(f'{scheme}://' for scheme in there)}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


PROBES: dict[str, Callable[[], Any]] = {
    "torch": probe_torch,
    "torchvision": probe_torchvision,
    "open_clip": probe_open_clip,
    "weights": probe_weights,
    "zarr": probe_zarr,
    "scikit-learn": probe_scikit_learn,
    "pyarrow": probe_pyarrow,
    "cuda": probe_cuda,
    "bf16": probe_bf16,
    "triton": probe_triton,
    "ffcv": probe_ffcv,
    "nvjpeg": probe_nvjpeg,
    "faiss": probe_faiss,
    "cuml": probe_cuml,
    "remote": probe_remote,
}
MODULES = {
    "remote": "fsspec",
    "nvjpeg": "torchcodec",
    "scikit-learn": "sklearn",
    "weights": "open_clip",
    "cuda": "torch",
    "bf16": "torch",
}


def main() -> None:
    # Libraries print at import; the report keeps the real stdout to itself.
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        report.write(json.dumps({"begin": name}) + "\n")
        report.write(json.dumps(asdict(run_probe(name))) + "\n")


if __name__ == "__main__":
    with ending_promptly():
        main()
