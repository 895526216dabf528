"""Sources behind URLs, against a local server that speaks S3: folders, tables, tars, and what the server is asked."""

from __future__ import annotations

import pickle
import shutil
import sys

import numpy as np
import pytest
from tars import jpeg, labelled, sample, write_tar

from cleanctl.config import EmbedConfig
from cleanctl.datasets.source import open_files, open_source
from cleanctl.errors import InputError, MissingPackageError, UsageError
from cleanctl.files import remote
from cleanctl.files.fingerprints import digest_of, fingerprint_files
from cleanctl.images.packed.pack import Limit, pack
from cleanctl.images.torch_loader import TorchLoader
from cleanctl.paths import location
from cleanctl.records import PixelSpec


def open_(source, **options):
    return open_source(EmbedConfig(source=source, **options))


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        path = tmp_path / "in" / ("cat", "dog")[number % 2] / f"{number:02d}[a]*?.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    (tmp_path / "in/cat/empty.jpg").write_bytes(b"")
    (tmp_path / "in/cat/.hidden.jpg").write_bytes(b"x")
    (tmp_path / "in/cat/notes.txt").write_bytes(b"x")
    return tmp_path / "in"


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"shards/train-{shard}.tar", labelled(20, start=shard))
    return tmp_path / "shards"


def forget_connections(s3):
    remote._open_in.cache_clear()
    type(s3.system).clear_instance_cache()


def same_dataset(here, there):
    assert there.classes == here.classes
    assert [m.split for m in there.splits] == [m.split for m in here.splits]
    for one, other in zip(here.splits, there.splits):
        assert other.keys == one.keys
        assert np.array_equal(other.label_N, one.label_N)
        mine, its = list(here.files.read(one.keys)), list(there.files.read(one.keys))
        assert [content.data for content in its] == [content.data for content in mine]
        assert [content.size for content in its] == [content.size for content in mine]
        assert there.files.stat(one.keys).size_N.tolist() == here.files.stat(one.keys).size_N.tolist()


@pytest.mark.parametrize("what", ["folder", "shards"])
def test_a_bucket_gives_what_the_folder_gives(s3, request, what):
    source = request.getfixturevalue(what)
    url = s3.fill(source)
    same_dataset(open_(source), open_(url + "/"))
    assert open_(url).files.location == url


def test_any_protocol_of_fsspec_will_do(shards, folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    for source in (shards, folder):
        for path in source.rglob("*.*"):
            memory.pipe_file(f"/{source.name}/{path.relative_to(source)}", path.read_bytes())
        same_dataset(open_(source), open_(f"memory://{source.name}"))
        same_dataset(open_(source), open_(f"file://{source}"))
    one = open_(f"memory://{shards.name}/train-1.tar")
    assert one.splits[0].keys == [f"train-1/{number:05d}" for number in range(1, 21)]


def test_tables_and_classes_may_lie_behind_urls(s3, folder, tmp_path):
    keys = sorted(str(path.relative_to(folder)) for path in folder.rglob("[0-9]*.jpg"))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/l.csv").write_text("path,label\n" + "".join(f"{key},{row % 2}\n" for row, key in enumerate(keys)))
    (tmp_path / "t/c.txt").write_text("even\nodd\n")
    tables, images = s3.fill(tmp_path / "t"), s3.fill(folder)
    dataset = open_(images, labels=f"{tables}/l.csv", classes=f"{tables}/c.txt")
    assert dataset.splits[0].keys == keys
    assert dataset.splits[0].label_N.tolist() == [row % 2 for row in range(len(keys))]
    assert (dataset.classes, dataset.left_out) == (("even", "odd"), 1)


def test_neighbours_in_a_tar_are_one_request(s3, shards):
    dataset = open_(s3.fill(shards))
    s3.requests.clear()
    assert all(content.data for content in dataset.files.read(dataset.splits[0].keys))
    assert len(s3.reads()) == 3, s3.requests


def test_a_folder_is_read_by_one_request_a_file_and_never_asked_for_sizes(s3, folder):
    dataset = open_(s3.fill(folder))
    keys = dataset.splits[0].keys
    s3.requests.clear()
    list(dataset.files.read(keys))
    assert len(s3.requests) == len(s3.reads()) == 12
    dataset.files.stat(keys)
    assert len(s3.requests) == 12


def test_merged_requests_stay_small_and_far_images_come_apart():
    tar, other = remote.Tar("a.tar", 1 << 40, 1), remote.Tar("b.tar", 1 << 40, 1)
    spans = [
        remote.Span(tar, 0, 100),
        remote.Span(other, 0, 100),
        remote.Span(tar, remote.GAP + 301, 100),
        remote.Span(tar, 200, 100),
    ]
    assert [(tar.name, start, stop, rows) for tar, start, stop, rows in remote._merge(spans)] == [
        ("a.tar", 0, 300, [0, 3]),
        ("a.tar", remote.GAP + 301, remote.GAP + 401, [2]),
        ("b.tar", 0, 100, [1]),
    ]
    many = [remote.Span(tar, row * (1 << 20), 1 << 20) for row in range(20)]
    assert [stop - start for _, start, stop, _ in remote._merge(many)] == [8 << 20, 8 << 20, 4 << 20]


def test_the_index_of_tars_is_not_asked_for_again(s3, shards, tmp_path):
    config = EmbedConfig(source=s3.fill(shards))
    first = open_source(config, cache=tmp_path / "x.parquet")
    s3.requests.clear()
    again = open_source(config, cache=tmp_path / "x.parquet")
    assert again.splits[0].keys == first.splits[0].keys
    assert s3.reads() == []
    write_tar(shards / "train-1.tar", labelled(21, start=1))
    s3.update(str(config.source), shards)  # the others are uploaded anew too, with the bytes that they had
    s3.requests.clear()
    assert len(open_source(config, cache=tmp_path / "x.parquet").splits[0]) == 61
    assert {url.rpartition("/")[2] for _, url, _ in s3.reads()} == {"train-1.tar"}


def test_stamps_tell_another_content_of_the_same_size_and_not_a_new_upload(s3, folder):
    url = s3.fill(folder)
    dataset = open_(url)
    keys = dataset.splits[0].keys
    before = dataset.files.stat(keys)
    changed = folder / keys[3]
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    s3.update(url, folder)
    after = open_(url).files.stat(keys)
    assert np.flatnonzero(after.mtime_ns_N != before.mtime_ns_N).tolist() == [3]
    assert np.array_equal(after.size_N, before.size_N)


def test_a_file_that_goes_or_changes_under_a_run_is_a_failed_row(s3, folder):
    url = s3.fill(folder)
    dataset = open_(url)
    keys = dataset.splits[0].keys
    s3.system.rm_file(f"{url}/{keys[0]}")
    s3.system.pipe_file(f"{url}/{keys[1]}", b"longer than before" * 1000)
    s3.system.pipe_file(f"{url}/{keys[2]}", b"short")
    contents = list(dataset.files.read([*keys, "cat/never.jpg"]))
    assert "not found" in contents[0].reason
    assert all("changed" in content.reason for content in contents[1:3])
    assert "not found" in contents[-1].reason
    assert all(not content.reason for content in contents[3:-1])
    assert [dataset.files.head(key, 4) for key in (keys[0], keys[4])] == [b"", b"\xff\xd8\xff\xe0"]


def test_packing_and_worker_processes_read_from_a_bucket(s3, shards, tmp_path):
    here, there = open_(shards), open_(s3.fill(shards))
    keys = here.splits[0].keys
    table = pack(files=there.files, keys=keys, path=tmp_path / "s.beton", limit=Limit(512))
    wanted = [digest_of(content.data) for content in here.files.read(keys)]
    assert [row.tobytes() for row in table.fingerprints.digest_N16] == wanted
    loaders = [TorchLoader(files=d.files, keys=keys, spec=PixelSpec(size=16), workers=2) for d in (here, there)]
    rows = np.random.default_rng(0).permutation(len(keys))
    for mine, its in zip(*(loader.batches(rows, batch_size=16) for loader in loaders)):
        assert its.ok_B.all()
        assert np.array_equal(mine.pixel_BSSC, its.pixel_BSSC)
        assert [row.tobytes() for row in its.fingerprints.digest_N16] == [wanted[row] for row in its.row_B]


def test_a_store_finds_its_bucket_again(s3, shards, folder):
    for source in (shards, folder):
        dataset = open_(s3.fill(source))
        keys = dataset.splits[0].keys
        files = open_files({"root": dataset.files.location, "layout": dataset.layout})
        for one in (files, pickle.loads(pickle.dumps(files))):
            fingerprints = fingerprint_files(one, keys)
            assert np.array_equal(fingerprints.mtime_ns_N, dataset.files.stat(keys).mtime_ns_N)
            assert np.array_equal(fingerprints.digest_N16, fingerprint_files(dataset.files, keys).digest_N16)


def test_a_transient_failure_is_tried_again(s3, folder, monkeypatch):
    import aiohttp

    dataset = open_(s3.fill(folder))
    ask, failed = aiohttp.ClientSession._request, []

    async def sometimes(self, method, url, **options):
        if str(url).endswith("1%5Ba%5D%2A%3F.jpg") and str(url) not in failed:
            failed.append(str(url))
            raise aiohttp.ClientConnectionError("gone for a moment")
        return await ask(self, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", sometimes)
    assert all(not content.reason for content in dataset.files.read(dataset.splits[0].keys))
    assert len(failed) == 2


# --- what cannot be


def test_no_such_bucket_or_folder_or_tar(s3, folder):
    url = s3.fill(folder)
    for wrong in ("s3://no-such-bucket/x", f"{url}/nothing", f"{url}/nothing.tar", "s3://no-such-bucket/x.tar"):
        with pytest.raises(InputError, match=r"cannot be read: .*not found.*Check the bucket"):
            open_(wrong)
    with pytest.raises(InputError, match=r"l\.csv' cannot be read"):
        open_(url, labels=f"{url}/l.csv")


def test_no_credentials_say_where_they_are_looked_for(s3, folder, monkeypatch, tmp_path):
    url = s3.fill(folder)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_connections(s3)
    with pytest.raises(InputError, match=r"AWS_ACCESS_KEY_ID"):
        open_(url)
    forget_connections(s3)


def test_a_missing_package_names_the_extra(monkeypatch):
    remote._open_in.cache_clear()
    pytest.importorskip("fsspec")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingPackageError, match=r"s3fs.*\[remote\]"):
        open_("s3://bucket/x")
    with pytest.raises(InputError, match="no protocol 'weird'"):
        open_("weird://bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    remote._open_in.cache_clear()
    with pytest.raises(MissingPackageError, match=r"fsspec.*\[remote\]"):
        open_("memory://x")


def test_urls_keep_their_slashes_and_no_password():
    assert location("s3://bucket/a/") == "s3://bucket/a"
    assert location("memory://") == "memory://"
    with pytest.raises(UsageError, match="password"):
        open_("ftp://user:secret@host/x")


def test_named_layouts_are_for_folders_of_this_machine(shards):
    with pytest.raises(UsageError, match="animal10n"):
        open_(f"file://{shards}", dataset="animal10n")


def test_compressed_tars_behind_a_url_are_refused():
    with pytest.raises(InputError, match="compressed"):
        open_("s3://bucket/x.tar.gz")


def test_an_http_server_without_ranges_is_found_out(tmp_path):
    """Its whole file, taken for a part, would be wrong bytes."""
    pytest.importorskip("aiohttp")
    import functools
    import http.server
    import threading

    write_tar(tmp_path / "s.tar", sample("a", jpeg() * 30_000, cls="cat"))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match="sends whole files"):
            open_(f"{base}/s.tar")
        shutil.rmtree(tmp_path / "cat", ignore_errors=True)
        for name in ("cat", "dog"):
            (tmp_path / "web" / name).mkdir(parents=True)
            (tmp_path / "web" / name / "1.jpg").write_bytes(jpeg())
        same_dataset(open_(tmp_path / "web"), open_(f"{base}/web"))
        server.shutdown()
