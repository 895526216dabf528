"""The packed file: row i is key i, JPEGs go in untouched, and an earlier file serves as long as it is right."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import odd_images
import pytest
from odd_images import encoded, picture, turned
from PIL import Image

from cleanctl.errors import InputError
from cleanctl.files.fingerprints import digest_of, fingerprint_files
from cleanctl.files.local import LocalStorage, read_file
from cleanctl.images.decode import decode_rgb
from cleanctl.images.packed import pack as packing
from cleanctl.images.packed.beton import PAGE_SIZE, RAW, BetonFile
from cleanctl.images.packed.pack import Limit, Packing, begin_packing, limit_for, pack, pack_bytes
from cleanctl.images.packed.rows import read_rows, table_path
from cleanctl.records import Status


def keys_of(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def run(root: Path, **options):
    options = {"limit": Limit(512), "keys": keys_of(root), "path": root.parent / "s.train.beton"} | options
    return pack(files=LocalStorage.of(root), **options)


def stored(path: Path) -> list[bytes]:
    beton = BetonFile(path)
    return [bytes(beton[row].data) for row in range(len(beton))]


def test_plain_jpegs_are_stored_byte_for_byte_in_the_order_of_the_keys(source):
    keys = keys_of(source)[::-1]
    table = run(source, keys=keys)
    assert stored(source.parent / "s.train.beton") == [(source / key).read_bytes() for key in keys]
    assert table.keys == keys
    assert (table.status_N == Status.OK).all()
    assert [row.tobytes() for row in table.fingerprints.digest_N16] == [
        digest_of((source / key).read_bytes()) for key in keys
    ]


def test_ffcvs_own_reader_finds_every_sample(source):
    reader = pytest.importorskip("ffcv.reader")
    run(source)
    path = source.parent / "s.train.beton"
    own, ours = reader.Reader(str(path)), BetonFile(path)
    assert (own.num_samples, own.field_names) == (9, ["image"])
    assert own.metadata["f0"].tolist() == ours.sample.tolist()
    assert own.alloc_table["size"].tolist() == [len(data) for data in stored(path)]


@pytest.mark.slow
def test_ffcvs_own_loader_reads_the_file(source):
    loader = pytest.importorskip("ffcv.loader")
    decoders = pytest.importorskip("ffcv.fields.rgb_image")
    (source / "a.png").write_bytes(encoded(picture(33, 44), "PNG"))
    run(source)
    pipeline = {"image": [decoders.CenterCropRGBImageDecoder((24, 24), 1)]}
    own = loader.Loader(
        str(source.parent / "s.train.beton"), batch_size=4, num_workers=1, drop_last=False, pipelines=pipeline
    )
    images = np.concatenate([np.array(batch) for (batch,) in own])
    wanted = np.asarray(picture(33, 44).crop((0, 5, 33, 38)).resize((24, 24), Image.Resampling.BOX), float)
    assert images.shape == (10, 24, 24, 3)
    assert np.abs(images[-1] - wanted).mean() < 3


def test_the_row_table_survives_the_disk(source):
    (source / "x.jpg").write_bytes(b"text")
    table = run(source)
    again = read_rows(table_path(source.parent / "s.train.beton"))
    assert (again.keys, again.reason, again.limit, again.token) == (table.keys, table.reason, 512, table.token)
    assert again.reason == {9: "not a readable image: text"}
    for name in ("status_N", "shape_N2"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    for name in ("digest_N16", "size_N", "mtime_ns_N"):
        assert np.array_equal(getattr(again.fingerprints, name), getattr(table.fingerprints, name))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_jpeg_is_stored_upright(tmp_path, orientation):
    (tmp_path / "t.jpg").write_bytes(turned(orientation))
    packed = pack_bytes(read_file(str(tmp_path / "t.jpg")), Limit(512))
    assert (packed.sample.mode, packed.sample.width, packed.sample.height) == (RAW, 70, 50)
    pixel = np.frombuffer(packed.sample.data, np.uint8).reshape(50, 70, 3)
    assert np.abs(pixel - np.asarray(picture(), float)).mean() < 3


@pytest.mark.parametrize(
    ("width", "height"),
    [
        *((1500, 1000), (700, 2000), (20, 66_000)),
        *(pytest.param(*size, marks=pytest.mark.slow) for size in ((40_000, 600), (9000, 9000))),
    ],
)
def test_no_stored_image_exceeds_the_limit_and_no_ribbon_loses_its_short_side(tmp_path, width, height):
    Image.new("RGB", (width, height), (90, 160, 40)).save(tmp_path / "big.png", compress_level=1)
    limit = Limit(512)
    packed = pack_bytes(read_file(str(tmp_path / "big.png")), limit)
    sample = packed.sample
    assert (packed.reason, packed.width, packed.height) == ("", width, height)
    assert min(sample.width, sample.height) <= 512
    assert max(sample.width, sample.height) <= 65_535
    assert sample.width * sample.height <= packing.AREA_LIMIT * 1.01
    assert len(sample.data) <= PAGE_SIZE
    if max(width, height) <= 10_000:
        assert min(sample.width, sample.height) == min(512, width, height)


def test_the_limit_follows_the_model_and_never_falls_below_512():
    assert [limit_for(size).short_side for size in (32, 224, 336, 448)] == [512, 512, 672, 896]


def test_odd_files_are_rows_too_and_a_placeholder_keeps_their_place(tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    cases = {name: expected for name, data, expected in odd_images.corpus() if (root / name).write_bytes(data) >= 0}
    table = run(root, keys=sorted([*cases, "missing.jpg"]))
    beton = BetonFile(tmp_path / "s.train.beton")
    for row, key in enumerate(table.keys):
        expected = cases.get(key, "file not found")
        if expected is None:
            assert table.status_N[row] == Status.OK
            assert tuple(table.shape_N2[row]) == decode_rgb((root / key).read_bytes()).size[::-1]
        else:
            assert table.status_N[row] == Status.FAILED
            assert expected in table.reason[row]
            assert beton[row][:3] == (RAW, 1, 1)
    assert len(table.reason) == sum(expected is not None for expected in cases.values()) + 1


# --- an earlier file -------------------------------------------------------------------------------------------------


def test_an_unchanged_folder_is_not_read_again(source, opened_files, recorder):
    first = run(source)
    before = (source.parent / "s.train.beton").stat()
    opened_files.clear()
    again = run(source, progress=recorder)
    assert opened_files == []
    assert again.token == first.token
    after = (source.parent / "s.train.beton").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert "matches the 9 images" in recorder.notes[-1]


def test_only_new_and_changed_files_are_read(source, opened_files):
    run(source)
    opened_files.clear()
    picture(60, 60).save(source / "3.jpg")
    picture(50, 50).save(source / "new.jpg")
    (source / "5.jpg").unlink()
    table = run(source)
    assert sorted(opened_files) == ["3.jpg", "new.jpg"]
    assert stored(source.parent / "s.train.beton") == [(source / key).read_bytes() for key in keys_of(source)]
    assert [row.tobytes() for row in table.fingerprints.digest_N16] == [
        digest_of((source / key).read_bytes()) for key in keys_of(source)
    ]


def test_a_file_that_was_only_touched_keeps_the_packed_file(source):
    first = run(source)
    os.utime(source / "4.jpg", (1, 1))
    assert run(source).token == first.token


def test_digests_that_the_caller_knows_spare_the_reading(source, opened_files):
    """A tar that was written anew: all its images have another time, and one has another content."""
    files, keys = LocalStorage.of(source), keys_of(source)
    run(source)
    for key in keys:
        os.utime(source / key, ns=(10, 10))
    touched = fingerprint_files(files, keys)
    opened_files.clear()
    run(source, fingerprints=touched)
    assert opened_files == []
    data = bytearray((source / keys[2]).read_bytes())
    data[-1] ^= 1
    (source / keys[2]).write_bytes(data)
    changed = fingerprint_files(files, keys)
    opened_files.clear()
    table = run(source, fingerprints=changed)
    assert opened_files == [keys[2]]
    assert np.array_equal(table.fingerprints.mtime_ns_N, changed.mtime_ns_N)
    assert np.array_equal(table.fingerprints.digest_N16, changed.digest_N16)
    opened_files.clear()
    run(source)
    assert opened_files == []


def test_a_file_changed_under_the_same_size_and_name_is_seen_by_its_time(source):
    run(source)
    data = bytearray((source / "4.jpg").read_bytes())
    data[-20] ^= 0x10
    (source / "4.jpg").write_bytes(data)
    os.utime(source / "4.jpg", ns=(5, 5))
    run(source)
    assert stored(source.parent / "s.train.beton")[4] == bytes(data)


def test_another_order_of_keys_is_packed_anew(source):
    run(source)
    keys = keys_of(source)[::-1]
    assert run(source, keys=keys).keys == keys
    assert stored(source.parent / "s.train.beton") == [(source / key).read_bytes() for key in keys]


def test_a_failed_row_is_tried_again_only_when_asked_or_changed(source, opened_files):
    (source / "bad.jpg").write_bytes(b"text")
    run(source)
    opened_files.clear()
    run(source)
    assert opened_files == []
    run(source, retry_failed=True)
    assert opened_files == ["bad.jpg"]
    picture().save(source / "bad.jpg")
    assert run(source).reason == {}


def test_a_higher_limit_packs_anew_only_if_something_was_reduced(source):
    first = run(source, limit=Limit(512))
    assert run(source, limit=Limit(700)).token == first.token
    picture(900, 800).save(source / "big.jpg")
    second = run(source, limit=Limit(512))
    third = run(source, limit=Limit(700))
    assert third.token != second.token
    assert BetonFile(source.parent / "s.train.beton")[9].height == 700
    assert run(source, limit=Limit(512)).token == third.token


@pytest.mark.parametrize("damage", ["cut", "other file", "no table", "swapped table", "rubbish table"])
def test_a_damaged_or_mismatched_pair_is_packed_anew(source, damage):
    run(source)
    path = source.parent / "s.train.beton"
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 10)
    elif damage == "other file":
        path.write_bytes(b"something else" * 1000)
    elif damage == "no table":
        table_path(path).unlink()
    elif damage == "swapped table":
        shutil.copy(table_path(path), source.parent / "old")
        picture().save(source / "0.jpg")
        run(source)
        shutil.copy(source.parent / "old", table_path(path))
    else:
        table_path(path).write_bytes(b"rubbish")
    run(source)
    assert stored(path) == [(source / key).read_bytes() for key in keys_of(source)]


def test_a_run_that_fails_leaves_the_former_pair_and_no_rest(source, monkeypatch):
    former = run(source)
    picture().save(source / "new.jpg")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing.BetonWriter, "finish", full)
    with pytest.raises(InputError, match="No space left"):
        run(source)
    names = sorted(path.name for path in source.parent.iterdir())
    assert names == ["images", "s.train.beton", "s.train.beton.parquet"]
    assert BetonFile(source.parent / "s.train.beton").token == former.token


def started(root: Path, **options) -> Packing:
    options = {"limit": Limit(512), "keys": keys_of(root), "path": root.parent / "s.train.beton"} | options
    packing = begin_packing(files=LocalStorage.of(root), first_row=0, **options)
    assert packing is not None
    return packing


def test_what_is_packed_before_an_early_end_is_not_read_again(source, monkeypatch, opened_files):
    monkeypatch.setattr("cleanctl.files.fingerprints._CHUNK", 2)
    packing = started(source)
    chunks = iter(packing)
    assert [next(chunks)[0].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    packing.close()
    table = read_rows(table_path(source.parent / "s.train.beton"))
    assert table.status_N.tolist() == [Status.OK] * 4 + [Status.PENDING] * 5
    assert len(BetonFile(source.parent / "s.train.beton")) == 9
    opened_files.clear()
    assert (run(source).status_N == Status.OK).all()
    assert sorted(opened_files) == [f"{row}.jpg" for row in range(4, 9)]
    assert stored(source.parent / "s.train.beton") == [(source / key).read_bytes() for key in keys_of(source)]
    opened_files.clear()
    run(source)
    assert opened_files == []


def test_an_early_end_never_replaces_a_file_that_has_more(source, monkeypatch):
    monkeypatch.setattr("cleanctl.files.fingerprints._CHUNK", 2)
    former = run(source)
    picture().save(source / "0-new.jpg")
    options = {"progress": StopsAt(3)}
    with pytest.raises(KeyboardInterrupt):
        run(source, **options)
    assert BetonFile(source.parent / "s.train.beton").token == former.token
    assert len(list(source.parent.iterdir())) == 3
    with pytest.raises(KeyboardInterrupt):
        run(source, progress=StopsAt(5))
    assert BetonFile(source.parent / "s.train.beton").token != former.token


class StopsAt:
    """A Progress that is interrupted at its n-th advance."""

    def __init__(self, number: int) -> None:
        self.left = number

    @contextmanager
    def track(self, title, **more):
        yield self

    def advance(self, amount: int = 1) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def test_a_place_that_cannot_be_written_to_is_an_error_from_the_start(source):
    (source.parent / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        started(source, path=source.parent / "file" / "s.beton")


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(source):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    host = platform.node()
    pid = done.stdout.strip()
    dead = [f".s.train.beton{table}.{host}.{pid}.00.partial" for table in ("", ".parquet")]
    alive = [f".s.train.beton.{host}.{os.getppid()}.00.partial", f".s.train.beton.another.{pid}.00.partial"]
    for name in dead + alive:
        (source.parent / name).write_bytes(b"rest")
    run(source)
    left = sorted(path.name for path in source.parent.glob(".*"))
    assert left == sorted(alive)


def test_a_killed_run_leaves_a_whole_pair_or_none(tmp_path):
    """SIGKILL at several moments of packing; the next run gives what an uninterrupted one gives."""
    root = tmp_path / "images"
    root.mkdir()
    for row in range(150):
        picture(30 + row % 50, 40).save(root / f"{row:03d}.png", compress_level=1)
    program = (
        "import sys; from pathlib import Path; from cleanctl.images.packed.pack import Limit, pack\n"
        "from cleanctl.files.local import LocalStorage\n"
        "root = Path(sys.argv[1]); print('go', flush=True)\n"
        "while True:\n"
        "    keys = sorted(p.name for p in root.iterdir())\n"
        "    pack(files=LocalStorage.of(root), keys=keys, path=root.parent / 's.beton', limit=Limit(512))\n"
        "    (root.parent / 's.beton').unlink()\n"
    )
    for delay in (0.02, 0.1):
        child = subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        run(root, path=tmp_path / "s.beton")
        beton = BetonFile(tmp_path / "s.beton")
        assert len(beton) == 150
        for row, key in enumerate(keys_of(root)):
            assert bytes(beton[row].data) == decode_rgb((root / key).read_bytes()).tobytes()
        (tmp_path / "s.beton").unlink()
