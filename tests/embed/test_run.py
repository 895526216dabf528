"""Promises about the run: nothing twice, nothing lost, nothing mixed, and the same store after any kill."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import threading
import time
from dataclasses import replace

import commands
import numpy as np
import pytest

import cleanctl.embed.opening
from cleanctl.api import embed
from cleanctl.clip.encoder import Encoder
from cleanctl.errors import InterruptedRun, StoreError
from cleanctl.records import Status
from cleanctl.store import Store

HAS_FFCV = importlib.util.find_spec("ffcv") is not None
WITH_FFCV = [pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed"), pytest.mark.slow]
LOADERS = ["torch", pytest.param("ffcv", marks=WITH_FFCV)]


@pytest.fixture
def store_path(tmp_path):
    return tmp_path / "s.zarr"


@pytest.fixture
def encoded(monkeypatch):
    """Counts the images that went through an encoder."""
    seen = []
    original = Encoder.encode_images

    def encode_images(self, pixel_BSSC):
        seen.append(len(pixel_BSSC))
        return original(self, pixel_BSSC)

    monkeypatch.setattr(Encoder, "encode_images", encode_images)
    return seen


def row_of(path, key, split="train"):
    opened = Store.open(path).split(split)
    return opened.embeddings(slice(None))[opened.keys().index(key)].astype(np.float32)


def touch_content(path, seed):
    rng = np.random.default_rng(seed)
    from PIL import Image

    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)


def test_every_image_and_prompt_of_every_split_is_in_the_store(config, store_path, images, tiny):
    tiny.write_images(images, 3, split="test", seed=1)
    summary = embed(config, store=store_path)
    store = Store.open(store_path)
    assert {split.split: (split.images, split.ok) for split in summary.splits} == {"train": (21, 21), "test": (9, 9)}
    assert store.classes == tiny.CLASSES
    train = store.split("train")
    assert train.complete
    train_keys = train.keys()
    assert train_keys == sorted(str(p.relative_to(images)) for p in (images / "train").rglob("*.jpg"))
    assert train.label_N().tolist() == [tiny.CLASSES.index(key.split("/")[1]) for key in train_keys]
    lengths = np.linalg.norm(train.embeddings(slice(None)).astype(np.float32), axis=1)
    assert np.allclose(lengths, 1, atol=1e-3)
    assert sorted(set(store.text().class_P.tolist())) == [0, 1, 2]
    assert store.source["root"] == str(images.absolute())
    record = summary.to_json()
    assert record["splits"][0]["images_per_second"] > 0


def test_embeddings_are_those_of_open_clips_own_transform(config, store_path, images, model_dir):
    import open_clip
    import torch
    from PIL import Image

    embed(config, store=store_path)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{model_dir}")
    keys = Store.open(store_path).split("train").keys()
    for key in keys:
        with torch.no_grad():
            one = model.eval().encode_image(transform(Image.open(images / key))[None], normalize=True)
        assert float(row_of(store_path, key) @ one[0].numpy()) > 0.999, key


@pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed")
def test_both_loaders_give_the_same_embeddings(config, tmp_path):
    embed(config, store=tmp_path / "torch.zarr")
    summary = embed(replace(config, loader="ffcv"), store=tmp_path / "ffcv.zarr")
    assert summary.splits[0].loader == "ffcv"
    assert (tmp_path / "ffcv.train.beton").exists()
    one, two = (Store.open(tmp_path / f"{name}.zarr").split("train") for name in ("torch", "ffcv"))
    a, b = (split.embeddings(slice(None)).astype(np.float32) for split in (one, two))
    assert (a * b).sum(1).min() > 0.999
    assert one.fingerprints().digest_N16.tolist() == two.fingerprints().digest_N16.tolist()


def test_a_second_run_encodes_nothing_and_builds_no_network(config, store_path, encoded, monkeypatch, arrays):
    embed(config, store=store_path)
    before, count = arrays(store_path), sum(encoded)
    assert count == 21

    def not_needed(*args, **kwargs):
        raise AssertionError("a network was built")

    monkeypatch.setattr(cleanctl.embed.opening, "load_encoder", not_needed)
    summary = embed(config, store=store_path)
    assert (summary.splits[0].embedded, summary.splits[0].unchanged, summary.prompts_embedded) == (0, 21, False)
    assert arrays(store_path) == before


def test_new_changed_touched_and_removed_files(config, store_path, images, encoded):
    embed(config, store=store_path)
    changed, touched, gone = (images / "train" / "cat" / f"000{i}.jpg" for i in range(3))
    kept = row_of(store_path, "train/cat/0003.jpg")
    old = row_of(store_path, "train/cat/0000.jpg")
    touch_content(changed, 9)
    os.utime(touched, ns=(1, 1))
    gone.unlink()
    touch_content(images / "train" / "dog" / "new.jpg", 10)
    encoded.clear()
    summary = embed(config, store=store_path).splits[0]
    assert sum(encoded) == 2  # the changed one and the new one; a touched file has the same content
    assert (summary.images, summary.embedded, summary.unchanged, summary.dropped) == (21, 2, 19, 1)
    keys = Store.open(store_path).split("train").keys()
    assert "train/cat/0002.jpg" not in keys
    assert (row_of(store_path, "train/cat/0003.jpg") == kept).all()
    assert np.abs(row_of(store_path, "train/cat/0000.jpg") - old).max() > 1e-2


def test_other_prompts_embed_text_alone(config, store_path, encoded):
    embed(config, store=store_path)
    first = Store.open(store_path).text()
    encoded.clear()
    summary = embed(replace(config, prompts="photo"), store=store_path)
    second = Store.open(store_path).text()
    assert encoded == []
    assert summary.prompts_embedded
    assert (len(first.prompts), len(second.prompts)) == (24, 3)
    assert second.prompts[0] == "a photo of a cat."


@pytest.mark.skipif(not HAS_FFCV, reason="FFCV is not installed")
def test_ffcv_leaves_the_encoder_all_of_torchs_threads(images, model_dir, tmp_path):
    """In a process that has not imported FFCV, because FFCV takes the threads away as it is first imported."""
    code = f"""
import sys, torch
assert "ffcv" not in sys.modules
torch.set_num_threads(2)
from pathlib import Path
from cleanctl.api import embed
from cleanctl.config import EmbedConfig
from cleanctl.clip import workers
seen, original = [], workers.CpuWorkers.__init__
def init(self, encoder):
    original(self, encoder)
    seen.append(self.ahead)
workers.CpuWorkers.__init__ = init
embed(EmbedConfig(source=Path({str(images)!r}), model="local-dir:{model_dir}", loader="ffcv", device="cpu"),
      store={str(tmp_path / "s.zarr")!r})
assert seen == [2], seen
assert torch.get_num_threads() == 2
"""
    done = commands.run("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("loader", LOADERS)
def test_unreadable_images_fail_with_a_reason_and_the_counts_add_up(config, store_path, images, recorder, loader):
    (images / "train" / "cat" / "empty.jpg").write_bytes(b"")
    (images / "train" / "dog" / "text.jpg").write_text("no image")
    whole = (images / "train" / "ship" / "0000.jpg").read_bytes()
    (images / "train" / "ship" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    summary = embed(replace(config, loader=loader), store=store_path, progress=recorder).splits[0]
    split = Store.open(store_path).split("train")
    failures = {split.keys()[row]: reason for row, reason in split.failures().items()}
    assert set(failures) == {"train/cat/empty.jpg", "train/dog/text.jpg", "train/ship/cut.jpg"}
    assert all(failures.values())
    assert (summary.images, summary.ok, summary.failed) == (24, 21, 3)
    assert np.isnan(split.embeddings(slice(None))[list(split.failures())]).all()
    assert any("3 of 24 images" in text for text in recorder.warnings)
    again = embed(replace(config, loader=loader), store=store_path).splits[0]
    assert again.embedded == 0, "a file that failed and did not change is not tried again"


def test_a_mended_image_is_tried_again(config, store_path, images):
    bad = images / "train" / "cat" / "bad.jpg"
    bad.write_bytes(b"")
    embed(config, store=store_path)
    touch_content(bad, 3)
    summary = embed(config, store=store_path).splits[0]
    assert (summary.embedded, summary.failed) == (1, 0)


def test_non_finite_embeddings_are_failures(config, store_path, monkeypatch):
    original = Encoder.embed

    def embed_with_nan(self, pixel_BSSC):
        image_BD = original(self, pixel_BSSC).clone()
        image_BD[0] = float("nan")
        return image_BD

    monkeypatch.setattr(Encoder, "embed", embed_with_nan)
    summary = embed(config, store=store_path).splits[0]
    assert summary.failed == 6  # the first of each batch of four
    assert "non-finite" in summary.failures[0][1]


def test_another_model_is_refused_naming_both_and_replace_starts_anew(
    config, store_path, other_model_dir, model_dir, recorder, arrays
):
    embed(config, store=store_path)
    before = arrays(store_path)
    other = replace(config, model=f"local-dir:{other_model_dir}")
    with pytest.raises(StoreError) as caught:
        embed(other, store=store_path)
    text = str(caught.value)
    assert str(model_dir) in text
    assert str(other_model_dir) in text
    assert "--store" in text
    assert "--replace" in text
    assert "weights_sha256" in text
    assert arrays(store_path) == before, "nothing already computed is lost"
    assert embed(replace(other, replace=True), store=store_path, progress=recorder).splits[0].embedded == 21
    assert any("recreated" in text for text in recorder.notes)
    assert embed(replace(other, replace=True), store=store_path).splits[0].embedded == 0, "--replace can be resumed"


def test_another_precision_is_refused_only_when_something_is_to_be_encoded(config, store_path, images):
    embed(config, store=store_path)
    half = replace(config, precision="bf16")
    assert embed(half, store=store_path).splits[0].embedded == 0
    touch_content(images / "train" / "cat" / "new.jpg", 4)
    with pytest.raises(StoreError, match=r"fp32.*bf16"):
        embed(half, store=store_path)
    assert embed(config, store=store_path).splits[0].embedded == 1


def test_auto_precision_goes_on_in_the_stores(config, store_path, images):
    embed(replace(config, precision="bf16"), store=store_path)
    touch_content(images / "train" / "cat" / "new.jpg", 4)
    summary = embed(config, store=store_path)
    assert (summary.precision, summary.splits[0].embedded) == ("bf16", 1)


def test_other_classes_are_refused(config, store_path, images, tmp_path):
    embed(config, store=store_path)
    (tmp_path / "classes.txt").write_text("ship\ndog\ncat\n")
    with pytest.raises(StoreError, match="3 classes"):
        embed(replace(config, classes=tmp_path / "classes.txt"), store=store_path)


def test_another_dataset_of_the_same_classes_is_refused_and_a_moved_one_is_not(config, store_path, images, encoded):
    embed(config, store=store_path)
    moved = images.rename(images.with_name("moved"))
    encoded.clear()
    assert embed(replace(config, source=moved), store=store_path).splits[0].unchanged == 21
    assert Store.open(store_path).source["root"] == str(moved)
    for path in (moved / "train").rglob("*.jpg"):
        path.rename(path.with_name("other-" + path.name))
    other = moved.rename(moved.with_name("another"))
    with pytest.raises(StoreError, match="0 of its 21 images"):
        embed(replace(config, source=other), store=store_path)
    assert encoded == []


def test_a_stop_signal_keeps_what_is_done_and_the_next_run_goes_on(config, store_path, images, encoded, monkeypatch):
    original = Encoder.encode_images

    def stop_in_the_third(self, pixel_BSSC):
        if len(encoded) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)  # lets the signal's handler run
        return original(self, pixel_BSSC)

    monkeypatch.setattr(Encoder, "encode_images", stop_in_the_third)
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(InterruptedRun, match=r"of 21 images of split 'train' remain") as caught:
        embed(config, store=store_path)
    assert caught.value.exit_code == 130
    done = sum(encoded)
    assert 0 < done < 21
    with pytest.raises(StoreError, match="not complete"):
        Store.open(store_path).split("train").require_complete()
    monkeypatch.setattr(Encoder, "encode_images", original)
    summary = embed(config, store=store_path).splits[0]
    assert summary.embedded + done == 21
    assert (Store.open(store_path).split("train").status_N() == Status.OK).all()


HELD = """
import sys, time
from pathlib import Path
from cleanctl.cli import main
from cleanctl.clip.encoder import Encoder
original, begun, folder = Encoder.encode_images, [], Path(sys.argv[1])

def encode_images(self, pixel_BSSC):
    begun.append(pixel_BSSC)
    if len(begun) == 3:
        (folder / "held").touch()
        while not (folder / "go-on").exists():
            time.sleep(0.01)
    return original(self, pixel_BSSC)

Encoder.encode_images = encode_images
sys.argv[1:2] = []
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_with_130_on_a_signal_and_says_what_remains(tmp_path, model_dir, number, tiny):
    """The signal comes while the third batch is encoded; the same command then does the rest."""
    images = tiny.write_images(tmp_path / "many", per_class=20)
    words = ["embed", images, "--model", f"local-dir:{model_dir}", "--loader", "torch", "--workers", "0"]
    words += ["--batch-size", "4", "--store", tmp_path / "s.zarr"]
    with commands.Command("-c", HELD, tmp_path, *words) as process:
        while not (tmp_path / "held").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        (tmp_path / "go-on").touch()
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopped: Stopped on request" in said
    left = int(re.search(r"(\d+) of 60 images of split 'train' remain", " ".join(said.split()))[1])
    done = int((Store.open(tmp_path / "s.zarr").split("train").committed()[0] == Status.OK).sum())
    assert 0 < done == 60 - left < 60
    again = commands.run("-m", "cleanctl", *words, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["splits"][0]["embedded"] == left


def test_an_error_of_the_loader_or_the_writer_is_raised_and_nothing_hangs(config, store_path, monkeypatch):
    from cleanctl.images.torch_loader import TorchLoader
    from cleanctl.store import SplitWriter

    def breaks(*args, **kwargs):
        raise OSError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(SplitWriter, "put", breaks)
        with pytest.raises(OSError, match="on fire"):
            embed(config, store=store_path)
    with monkeypatch.context() as patch:
        original = TorchLoader.batches

        def batches(self, *args, **kwargs):
            for i, batch in enumerate(original(self, *args, **kwargs)):
                if i == 2:
                    breaks()
                yield batch

        patch.setattr(TorchLoader, "batches", batches)
        with pytest.raises(OSError, match="on fire"):
            embed(config, store=store_path)
    assert embed(config, store=store_path).splits[0].ok == 21
