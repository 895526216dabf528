"""The contract of a loader, held against each: every row once, in order, upright, as open_clip sees it, or a reason."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd_images
import pytest
from loading import as_open_clip, collect, keeps_the_promise, without
from PIL import Image

from cleanctl.errors import InputError, MissingPackageError, UsageError
from cleanctl.files.fingerprints import digest_of
from cleanctl.files.local import LocalStorage
from cleanctl.images import torch_loader
from cleanctl.images.crop import to_crop
from cleanctl.images.decode import UnreadableImage, decode_pixels, decode_rgb
from cleanctl.images.geometry import RandomCrop, WindowCrop
from cleanctl.images.loaders import LoaderRequest, open_loader
from cleanctl.records import PixelSpec

SMALL = PixelSpec(size=16)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Path:
    """23 flat images whose red value is ten times their row."""
    root = tmp_path_factory.mktemp("numbered")
    for row in range(23):
        image = Image.new("RGB", (20 + row, 40 - row), (10 * row, 100, 50))
        image.save(root / f"{row:02d}.{'png' if row % 2 else 'jpg'}", **({} if row % 2 else {"quality": 98}))
    return root


@pytest.fixture(scope="module")
def numbered_keys(numbered) -> list[str]:
    return sorted(path.name for path in numbered.iterdir())


def shown_rows(pixel: np.ndarray) -> list[int]:
    return np.rint(pixel[..., 0].mean(axis=(1, 2)) / 10).astype(int).tolist()


@pytest.mark.parametrize("batch_size", [1, 5, 8, 23, 64])
def test_every_row_comes_once_in_order_and_the_last_batch_is_kept(kind, opened, numbered, numbered_keys, batch_size):
    loader = opened(kind, numbered, numbered_keys, SMALL)
    sizes = [len(batch.row_B) for batch in loader.batches(np.arange(23), batch_size=batch_size)]
    assert sum(sizes) == 23
    assert set(sizes[:-1]) <= {batch_size}
    row, pixel, ok, reason = collect(loader, range(23), batch_size=batch_size)
    assert row.tolist() == shown_rows(pixel) == list(range(23))
    assert ok.all()
    assert reason == {}
    assert pixel.shape == (23, 16, 16, 3)


def test_rows_come_in_any_order_and_as_often_as_asked(kind, opened, numbered, numbered_keys):
    loader = opened(kind, numbered, numbered_keys, SMALL)
    for rows in ([22, 0, 0, 7, 22, 3], [5], list(range(22, -1, -1)) * 3):
        row, pixel, _, _ = collect(loader, rows, batch_size=4)
        assert row.tolist() == rows == shown_rows(pixel)


def test_no_rows_give_no_batches(kind, opened, numbered, numbered_keys):
    assert list(opened(kind, numbered, numbered_keys, SMALL).batches(np.array([], int), batch_size=4)) == []


def test_a_pass_that_is_left_early_does_not_disturb_the_next(kind, opened, numbered, numbered_keys):
    loader = opened(kind, numbered, numbered_keys, SMALL)
    for _ in range(3):
        next(loader.batches(np.arange(23), batch_size=2))
    assert shown_rows(collect(loader, range(23), batch_size=6)[1]) == list(range(23))


def test_a_batch_stays_whole_until_the_next_is_asked_for(kind, opened, numbered, numbered_keys):
    import time

    for batch in opened(kind, numbered, numbered_keys, SMALL).batches(np.tile(np.arange(23), 8), batch_size=3):
        time.sleep(0.002)
        assert shown_rows(batch.pixel_BSSC) == batch.row_B.tolist()


def test_two_loaders_run_at_the_same_time(kind, opened, numbered, numbered_keys):
    one, other = (opened(kind, numbered, numbered_keys, PixelSpec(size=size)) for size in (16, 24))
    pairs = zip(one.batches(np.arange(23), batch_size=4), other.batches(np.arange(23)[::-1], batch_size=4))
    for first, second in pairs:
        assert shown_rows(first.pixel_BSSC) == first.row_B.tolist()
        assert shown_rows(second.pixel_BSSC) == second.row_B.tolist()


def test_loading_leaves_torchs_threads_and_numpys_generator_alone(kind, opened, numbered, numbered_keys):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    np.random.seed(7)
    expected = np.random.RandomState(7).randint(1000)
    collect(opened(kind, numbered, numbered_keys, SMALL), range(23), batch_size=4)
    assert torch.get_num_threads() == 2
    assert np.random.randint(1000) == expected
    torch.set_num_threads(before)


# --- promise 4: what open_clip's own transform gives -----------------------------------------------------------------


SPECS = [
    PixelSpec(size=64),
    PixelSpec(size=224),
    PixelSpec(size=224, resize_mode="squash", interpolation="bilinear"),
    PixelSpec(size=96, resize_mode="longest", fill=127),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.resize_mode}-{spec.size}")
def test_pixels_are_those_of_open_clips_own_transform(kind, opened, photos, photo_keys, spec):
    _, got, ok, _ = collect(opened(kind, photos, photo_keys, spec), range(len(photo_keys)), batch_size=7)
    wanted = as_open_clip(photos, photo_keys, spec)
    assert ok.all()
    assert keeps_the_promise(got, wanted)
    if kind == "torch":
        off = np.abs(got - wanted)
        assert off.max() <= 4
        assert (off > 1).mean() < 1e-3


def test_ffcv_gives_the_torch_loaders_pixels_of_stored_jpegs(opened, photos, photo_keys):
    pytest.importorskip("ffcv")
    keys = [key for key in photo_keys if key.endswith(".jpg") and "wall" not in key]
    one, other = (
        collect(opened(kind, photos, keys, PixelSpec(size=224)), range(len(keys)), batch_size=7)[1]
        for kind in ("ffcv", "torch")
    )
    assert np.array_equal(one, other)


def test_ffcv_keeps_no_objects_for_each_row(opened, photos, photo_keys):
    pytest.importorskip("ffcv")
    manager = opened("ffcv", photos, photo_keys, PixelSpec(size=64))._loader.memory_manager
    held = {name: value for name, value in vars(manager).items() if isinstance(value, (dict, list, set)) and value}
    assert not held
    assert len(manager.ptrs) == len(manager.sizes) == len(photo_keys)


def test_the_promise_is_broken_by_a_swap_a_shift_another_filter_and_a_stretch(photos, photo_keys):
    """What a careless loader would do; each must be seen by the measure that the loaders are held to."""
    import torchvision.transforms.functional as F

    spec = PixelSpec(size=64)
    images = [Image.open(photos / key).convert("RGB") for key in photo_keys]

    def crops(spec, images=images):
        return np.stack([to_crop(np.array(image), spec) for image in images])

    right = crops(spec)
    assert keeps_the_promise(right, as_open_clip(photos, photo_keys, spec))
    wide = [F.resize(image, 64, F.InterpolationMode.BICUBIC) for image in images]
    careless = {
        "channels swapped": right[..., ::-1],
        "crop off by one": np.stack(
            [np.asarray(F.crop(image, (image.height - 64) // 2, (image.width - 64) // 2 + 1, 64, 64)) for image in wide]
        ),
        "bilinear": crops(PixelSpec(size=64, interpolation="bilinear")),
        "area": crops(spec, [image.reduce(2) for image in images]),
        "no antialias": np.stack([np.asarray(image.resize((64, 64), Image.Resampling.NEAREST)) for image in images]),
        "squashed": crops(PixelSpec(size=64, resize_mode="squash")),
    }
    assert [name for name, pixel in careless.items() if keeps_the_promise(pixel, right)] == []


# --- odd and broken files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, dict[str, str | None]]:
    root = tmp_path_factory.mktemp("odd")
    cases = odd_images.corpus()
    for name, data, _ in cases:
        (root / name).write_bytes(data)
    (root / "folder.jpg").mkdir()
    expected = {name: reason for name, _, reason in cases}
    return root, expected | {"missing.jpg": "file not found", "folder.jpg": "a folder, not a file"}


def test_every_odd_file_ends_ok_or_failed_with_its_reason(kind, opened, odd):
    root, expected = odd
    keys = sorted(expected)
    row, pixel, ok, reason = collect(opened(kind, root, keys, PixelSpec(size=32)), range(len(keys)), batch_size=9)
    assert row.tolist() == list(range(len(keys)))
    assert len(reason) + ok.sum() == len(keys)
    for index, key in enumerate(keys):
        wanted = expected[key]
        assert ok[index] == (wanted is None), (key, reason.get(index))
        if wanted is not None:
            assert wanted in reason[index]
            continue
        reference = to_crop(np.array(decode_rgb((root / key).read_bytes())), PixelSpec(size=32))
        assert np.abs(pixel[index].astype(int) - reference).mean() < 1.5, key


def test_a_batch_brings_the_fingerprints_of_the_files_its_pixels_came_from(kind, opened, odd):
    root, expected = odd
    keys = sorted(expected)
    rows = np.array([*range(len(keys)), 3, 3, 0])
    packing = opened("ffcv", root, keys, PixelSpec(size=32), first_row=0) if kind == "ffcv" else None
    passes = [opened(kind, root, keys, PixelSpec(size=32)).batches(rows, batch_size=9)]
    passes += [packing.batches(np.arange(len(keys)), batch_size=9)] if packing else []
    for batch in itertools.chain(*passes):
        for at, row in enumerate(batch.row_B.tolist()):
            found, path = batch.fingerprints.at(slice(at, at + 1)), root / keys[row]
            if not path.is_file():
                assert (found.size_N[0], found.digest_N16.any()) == (-1, False)
                continue
            data, stat = path.read_bytes(), path.stat()
            assert (found.size_N[0], found.mtime_ns_N[0]) == (len(data), stat.st_mtime_ns), keys[row]
            assert found.digest_N16[0].tobytes() == digest_of(data)


def test_a_failed_row_does_not_spoil_its_neighbours(kind, opened, tmp_path):
    for name, level in (("a.jpg", 10), ("c.jpg", 200)):
        Image.new("RGB", (30, 30), (level,) * 3).save(tmp_path / name, quality=98)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    loader = opened(kind, tmp_path, ["a.jpg", "b.jpg", "c.jpg"], SMALL)
    _, pixel, ok, reason = collect(loader, [1, 0, 1, 2, 1], batch_size=5)
    assert ok.tolist() == [False, True, False, True, False]
    assert list(reason) == [1]
    assert pixel[1].mean() == pytest.approx(10, abs=1)
    assert pixel[3].mean() == pytest.approx(200, abs=1)


def test_the_pass_that_packs_gives_what_the_packed_file_gives(opened, odd, photos, photo_keys, tmp_path):
    """Pixels bit by bit, rows, reasons and the file itself; odd files included."""
    pytest.importorskip("ffcv")
    root, expected = odd
    for key in photo_keys:
        (root / f"photo-{key}").write_bytes((photos / key).read_bytes())
    keys = sorted([*expected, *(f"photo-{key}" for key in photo_keys)])
    spec, rows = PixelSpec(size=64), np.arange(len(keys))
    two = opened("ffcv", root, keys, spec)
    beton = tmp_path / "s.beton"
    one = opened("ffcv", root, keys, spec, beton=beton, first_row=0)
    assert type(one).__name__ == "PackingLoader"
    assert not beton.exists()
    head, rest = (collect(one, part, batch_size=7) for part in (rows[:10], rows[10:]))
    row, pixel, ok, reason = (
        np.concatenate([a, b]) if isinstance(a, np.ndarray) else a | b for a, b in zip(head, rest)
    )
    wanted = collect(two, rows, batch_size=7)
    assert row.tolist() == rows.tolist()
    assert np.array_equal(ok, wanted[2])
    assert reason == wanted[3]
    assert np.array_equal(pixel[ok], wanted[1][ok])
    assert beton.exists()
    third = opened("ffcv", root, keys, spec, beton=beton, first_row=0)
    assert type(third).__name__ == "FfcvLoader"
    assert np.array_equal(collect(third, rows, batch_size=7)[1][ok], pixel[ok])


# --- random crops ----------------------------------------------------------------------------------------------------


def test_a_seed_fixes_the_crops_whatever_the_batch_size(kind, opened, photos, photo_keys):
    loader = opened(kind, photos, photo_keys, PixelSpec(size=48), crop=RandomCrop(scale=(0.1, 0.6)))
    rows = np.zeros(12, int)
    first = collect(loader, rows, batch_size=5, seed=3)[1]
    assert np.array_equal(first, collect(loader, rows, batch_size=12, seed=3)[1])
    assert not np.array_equal(first, collect(loader, rows, batch_size=5, seed=4)[1])
    assert len({one.tobytes() for one in first}) == 12


@pytest.mark.parametrize("crop", [RandomCrop(), WindowCrop(resize=60)])
def test_all_loaders_cut_the_same_crops(opened, kind, photos, photo_keys, crop):
    keys = [key for key in photo_keys if key.endswith(".jpg") and "wall" not in key]
    spec, rows = PixelSpec(size=48, interpolation="bilinear"), np.arange(3 * len(keys)) % len(keys)
    one, other = (
        collect(opened(which, photos, keys, spec, crop=crop), rows, batch_size=8, seed=1)[1].astype(int)
        for which in ("torch", kind)
    )
    assert np.abs(one - other).mean() < (1 if "nvjpeg" in kind else 0.5)


# --- which loader, and why -------------------------------------------------------------------------------------------


def test_auto_says_which_loader_it_took_and_why(monkeypatch, numbered, numbered_keys, tmp_path, recorder):
    pytest.importorskip("ffcv")
    nowhere = LoaderRequest(files=LocalStorage.of(numbered), keys=numbered_keys, spec=SMALL)
    request = replace(nowhere, beton=tmp_path / "s.train.beton")
    assert open_loader(request, progress=recorder).name == "ffcv"
    assert "s.train.beton" in recorder.notes[-1]
    assert open_loader(nowhere, progress=recorder).name == "torch"
    assert "no place" in recorder.notes[-1]
    assert open_loader(request, "torch", recorder).name == "torch"
    assert "asked for" in recorder.notes[-1]
    without("ffcv", monkeypatch)
    assert open_loader(request, progress=recorder).name == "torch"
    assert "[ffcv]'" in recorder.notes[-1]


def test_ffcv_that_is_not_installed_is_an_error_only_when_asked_for(monkeypatch, numbered, numbered_keys, tmp_path):
    without("ffcv", monkeypatch)
    with pytest.raises(MissingPackageError, match=r"\[ffcv\]"):
        open_loader(
            LoaderRequest(files=LocalStorage.of(numbered), keys=numbered_keys, spec=SMALL, beton=tmp_path / "b"), "ffcv"
        )


def test_a_place_that_cannot_be_written_to_costs_auto_only_the_speed(numbered, numbered_keys, tmp_path, recorder):
    pytest.importorskip("ffcv")
    (tmp_path / "file").write_text("in the way")
    beton = tmp_path / "file" / "s.train.beton"
    request = LoaderRequest(files=LocalStorage.of(numbered), keys=numbered_keys, spec=SMALL, beton=beton)
    assert open_loader(request, "auto", recorder).name == "torch"
    assert "cannot be written" in recorder.notes[-1]
    with pytest.raises(InputError, match="cannot be written"):
        open_loader(request, "ffcv")


def test_an_unknown_loader_is_refused(numbered, numbered_keys):
    with pytest.raises(UsageError, match="fast"):
        open_loader(LoaderRequest(files=LocalStorage.of(numbered), keys=numbered_keys, spec=SMALL), "fast")


# --- worker processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_worker_processes_give_the_same_batches(opened, numbered, numbered_keys, workers):
    here = collect(opened("torch", numbered, numbered_keys, SMALL), range(23), batch_size=4)
    there = collect(opened("torch", numbered, numbered_keys, SMALL, workers=workers), range(23), batch_size=4)
    assert np.array_equal(here[1], there[1])


@pytest.fixture
def noticing_soon(monkeypatch):
    """torch looks every five seconds whether its workers live."""
    from torch.utils.data import dataloader

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))


def test_a_killed_worker_costs_no_batch_and_a_killing_image_fails_alone(
    monkeypatch, opened, numbered, numbered_keys, recorder, noticing_soon
):
    this, killer = os.getpid(), (numbered / numbered_keys[13]).read_bytes()

    def decode(data):
        if data == killer and os.getpid() != this:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_pixels(data)

    for name in ("decode_pixels", "decode_rgb"):  # the second in the process that takes one image alone
        monkeypatch.setattr(torch_loader, name, decode)
    loader = opened("torch", numbered, numbered_keys, SMALL, workers=2, progress=recorder)
    row, pixel, ok, reason = collect(loader, range(23), batch_size=2)
    assert row.tolist() == list(range(23))
    assert np.flatnonzero(~ok).tolist() == [13]
    assert "killed" in reason[13]
    assert shown_rows(pixel[ok]) == [index for index in range(23) if index != 13]
    assert "worker" in recorder.warnings[0]


def test_a_worker_that_dies_once_costs_nothing(
    monkeypatch, opened, numbered, numbered_keys, tmp_path, recorder, noticing_soon
):
    this, once = os.getpid(), tmp_path / "died"

    def decode(data):
        if os.getpid() != this and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode_pixels(data)

    monkeypatch.setattr(torch_loader, "decode_pixels", decode)
    loader = opened("torch", numbered, numbered_keys, SMALL, workers=2, progress=recorder)
    assert shown_rows(collect(loader, range(23), batch_size=4)[1]) == list(range(23))
    assert len(recorder.warnings) == 1


def test_an_unreadable_image_never_raises_in_a_worker(monkeypatch, opened, numbered, numbered_keys):
    def decode(data):
        raise UnreadableImage("of no use")

    monkeypatch.setattr(torch_loader, "decode_pixels", decode)
    loader = opened("torch", numbered, numbered_keys, SMALL, workers=1)
    assert set(collect(loader, range(5), batch_size=2)[3].values()) == {"of no use"}
