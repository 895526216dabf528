"""Decoding on a GPU, with torchcodec's processor decoder in its place: what goes there, what does not, and errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import odd_images
import pytest
import torch
from loading import as_open_clip, collect, keeps_the_promise, without

from cleanctl.errors import MissingPackageError, UsageError
from cleanctl.files.local import LocalStorage
from cleanctl.images import nvjpeg_loader
from cleanctl.images.crop import to_crop
from cleanctl.images.decode import decode_rgb
from cleanctl.images.loaders import LoaderRequest, open_loader
from cleanctl.records import PixelSpec


def test_what_a_device_would_decode_otherwise_is_decoded_here(opened, tmp_path, monkeypatch):
    """Its squares are Pillow's bit by bit: small pictures (chroma), turned ones, ribbons, RGB stored as such, PNG."""
    pytest.importorskip("torchcodec")
    sent = []
    large = odd_images.picture(700, 500)
    large.save(tmp_path / "0-large.jpg", quality=90)
    large.save(tmp_path / "1-rgb.jpg", quality=90, keep_rgb=True)
    large.save(tmp_path / "2.png")
    (tmp_path / "3-turned.jpg").write_bytes(odd_images.turned(6))
    odd_images.picture(2000, 100).save(tmp_path / "4-ribbon.jpg", quality=90)
    odd_images.picture(80, 80).save(tmp_path / "5-small.jpg", quality=90)
    keys = sorted(path.name for path in tmp_path.iterdir())
    loader = opened("nvjpeg on cpu", tmp_path, keys, PixelSpec(size=64))
    decode = loader._decode_on_device
    monkeypatch.setattr(loader, "_decode_on_device", lambda data: sent.extend(data) or decode(data))
    _, pixel, ok, _ = collect(loader, range(len(keys)), batch_size=4)
    assert ok.all()
    assert sent == [(tmp_path / "0-large.jpg").read_bytes()]
    for key, got in zip(keys[1:], pixel[1:]):
        wanted = to_crop(np.array(decode_rgb((tmp_path / key).read_bytes())), PixelSpec(size=64))
        assert np.array_equal(got, wanted), key


def test_a_jpeg_that_the_device_refuses_costs_the_others_of_its_call_nothing(opened, photos, monkeypatch):
    codec = pytest.importorskip("torchcodec.decoders")
    keys = ["china.jpg", "flower.jpg", "china-501.jpg", "flower-501.jpg"]
    refused, calls, decode = (photos / "flower.jpg").read_bytes(), [], codec.decode_jpeg

    def decode_or_refuse(data, **more):
        calls.append(len(data))
        if refused in data:
            raise RuntimeError("nvjpegDecode failed: 4")
        return decode(data, **more)

    monkeypatch.setattr(codec, "decode_jpeg", decode_or_refuse)
    spec = PixelSpec(size=64)
    _, pixel, ok, _ = collect(opened("nvjpeg on cpu", photos, keys, spec), range(4), batch_size=4)
    assert ok.all()
    assert keeps_the_promise(pixel, as_open_clip(photos, keys, spec))
    assert calls == [4, 2, 1, 1, 2]


def test_a_small_picture_with_all_of_its_chroma_is_decoded_on_the_device(opened, tmp_path):
    """Grey ones too: what nvJPEG does otherwise than libjpeg is to fill in thinned chroma."""
    pytest.importorskip("torchcodec")
    small = odd_images.picture(90, 70)
    small.save(tmp_path / "0-whole.jpg", quality=95, subsampling="4:4:4")
    small.save(tmp_path / "1-thinned.jpg", quality=95, subsampling="4:2:0")
    small.convert("L").save(tmp_path / "2-grey.jpg", quality=95)
    keys = sorted(path.name for path in tmp_path.iterdir())
    spec, sent = PixelSpec(size=64), []
    loader = opened("nvjpeg on cpu", tmp_path, keys, spec)
    decode = loader._decode_on_device
    loader._decode_on_device = lambda data: sent.extend(data) or decode(data)
    _, pixel, ok, _ = collect(loader, range(3), batch_size=3)
    assert ok.all()
    assert sent == [(tmp_path / keys[0]).read_bytes(), (tmp_path / keys[2]).read_bytes()]
    assert keeps_the_promise(pixel, as_open_clip(tmp_path, keys, spec))


@pytest.mark.parametrize("kind", ["nvjpeg on cpu", pytest.param("nvjpeg", marks=pytest.mark.gpu)])
def test_crops_left_on_the_device_are_those_of_the_readable_images_in_order(opened, tmp_path, kind):
    """Decoded there and here by turns, one file broken, and a batch with nothing readable."""
    pytest.importorskip("torchcodec")
    large, small = odd_images.picture(300, 200), odd_images.picture(50, 60)
    large.save(tmp_path / "0.jpg", quality=90)
    small.save(tmp_path / "1.png")
    (tmp_path / "2.jpg").write_bytes(b"no image")
    large.rotate(180).save(tmp_path / "3.jpg", quality=90)
    small.rotate(180).save(tmp_path / "4.png")
    (tmp_path / "5.jpg").write_bytes(b"")
    (tmp_path / "6.jpg").write_bytes(b"nor this")
    keys = [f"{path.name}" for path in sorted(tmp_path.iterdir())]
    _, pixel, ok, reason = collect(opened(kind, tmp_path, keys, PixelSpec(size=32)), range(7), batch_size=5)
    left = list(opened(kind, tmp_path, keys, PixelSpec(size=32), on_device=True).batches(np.arange(7), batch_size=5))
    assert [len(batch.on_device) for batch in left] == [4, 0]
    assert [batch.pixel_BSSC.shape[0] for batch in left] == [0, 0]
    assert left[0].reason | left[1].reason == reason
    assert np.concatenate([batch.ok_B for batch in left]).tolist() == ok.tolist()
    assert np.array_equal(left[0].on_device.pixel_KSSC.cpu().numpy(), pixel[ok])
    assert tuple(left[1].on_device.pixel_KSSC.shape) == (0, 32, 32, 3)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("nvjpegDecode failed: 5"),
        RuntimeError("Failed to create nvjpeg state: 1"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_device_at_fault_ends_the_pass_instead_of_slowing_it(opened, photos, monkeypatch, error):
    codec, calls = pytest.importorskip("torchcodec.decoders"), []

    def fail(data, **more):
        calls.append(len(data))
        raise error

    monkeypatch.setattr(codec, "decode_jpeg", fail)
    loader = opened("nvjpeg on cpu", photos, ["china.jpg", "flower.jpg"], PixelSpec(size=64))
    loader._device = "cuda"
    with pytest.raises(RuntimeError, match=str(error)):
        loader._decode_on_device([b"one", b"two"])
    assert calls == [2]


def test_all_threads_read_one_batch_and_its_order_is_kept(opened, photos, monkeypatch):
    """Three files at a time: the second part waits until the first has ended, so their ends are out of order."""
    pytest.importorskip("torchcodec")
    monkeypatch.setattr(nvjpeg_loader, "CHUNK", 3)
    keys = ["china.jpg", "flower.jpg", "china-501.jpg", "flower-501.jpg", "china.jpg"]
    spec, first_ended, threads = PixelSpec(size=64), threading.Event(), set()
    loader = opened("nvjpeg on cpu", photos, keys, spec)
    read = loader._read

    def read_the_second_part_first(batch, part, *rest):
        threads.add(threading.get_ident())
        if part.start == 0:
            assert first_ended.wait(120)
        read(batch, part, *rest)
        if part.start:
            first_ended.set()

    monkeypatch.setattr(loader, "_read", read_the_second_part_first)
    monkeypatch.setattr(loader, "_pool", ThreadPoolExecutor(2))  # on one core the loader has one thread
    row, pixel, ok, _ = collect(loader, range(5), batch_size=5)
    assert row.tolist() == [0, 1, 2, 3, 4]
    assert ok.all()
    assert len(threads) == 2
    assert keeps_the_promise(pixel, as_open_clip(photos, keys, spec))


def test_few_pixels_are_on_the_device_at_once(opened, photos, monkeypatch):
    codec = pytest.importorskip("torchcodec.decoders")
    calls, decode = [], codec.decode_jpeg
    monkeypatch.setattr(codec, "decode_jpeg", lambda data, **more: calls.append(len(data)) or decode(data, **more))
    monkeypatch.setattr(nvjpeg_loader, "PIXELS_AT_ONCE", 2 * 640 * 427)
    keys = ["china.jpg", "flower.jpg"] * 2 + ["china-wall.jpg"]
    assert collect(opened("nvjpeg on cpu", photos, keys, PixelSpec(size=64)), range(5), batch_size=5)[2].all()
    assert calls == [2, 2, 1]


def test_nvjpeg_without_a_gpu_or_without_torchcodec_says_what_to_do(monkeypatch, photos, photo_keys):
    request = LoaderRequest(files=LocalStorage.of(photos), keys=photo_keys, spec=PixelSpec(size=16))
    without("torchcodec", monkeypatch)
    with pytest.raises(MissingPackageError, match=r"\[gpu\]"):
        open_loader(request, "nvjpeg")
    monkeypatch.undo()
    pytest.importorskip("torchcodec")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        open_loader(request, "nvjpeg")
