"""`train` end to end on a real store: what it learns, leaves behind and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import CLASSES, RECIPE, MemoryLoader, draw, loader_of, make_store, sizes, truth

from cleanctl.config import TrainConfig
from cleanctl.errors import InputError, StoreError, UsageError
from cleanctl.records import PixelSpec
from cleanctl.runtime import StopFlag
from cleanctl.store import Store
from cleanctl.train import open_run, train
from cleanctl.train.metrics import GROUPS
from cleanctl.train.pixels import HeldPixels, StreamedPixels, place
from cleanctl.train.recipe import parse_recipe
from cleanctl.train.rundir import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


class Notes:
    """A Progress that remembers what was said."""

    def __init__(self) -> None:
        from cleanctl.progress import SILENT

        self.said: list[str] = []
        self.track = SILENT.track

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.toml").write_text(RECIPE)
    return make_store(folder / "s.zarr", failed=(7,))


def config(store: Store, **options: object) -> TrainConfig:
    recipe = str(store.path.with_name("tiny.toml"))
    return TrainConfig(**{"recipe": recipe, "device": "cpu", **options})  # type: ignore[arg-type]


def test_mixfix_on_the_selection_beats_cross_entropy_on_all_labels(store: Store) -> None:
    text = RECIPE.replace('"autoaugment-cifar10"', '"none"\nflip = false\nfirst_update = 5')
    store.path.with_name("easy.toml").write_text(text.replace("epochs = 3", "epochs = 8"))
    easy = str(store.path.with_name("easy.toml"))
    common = {"recipe": easy, "network": "fastconv-w8"}
    mixfix = train(
        store,
        config(store, name="a", theta_absorb=0.8, theta_relabel=0.95, mixup_beta=0.2, **common),
        loader_factory=loader_of,
    )
    plain = train(
        store, config(store, name="b", method="cross-entropy", selection="all", **common), loader_factory=loader_of
    )
    assert mixfix.last_top1 is not None
    assert plain.last_top1 is not None
    assert mixfix.last_top1 > plain.last_top1 + 0.02
    assert mixfix.last_top1 > 0.9
    assert plain.label_accuracy == pytest.approx(0.75, abs=0.1)
    assert (plain.absorbed, plain.relabelled, plain.members) == (0, 0, 159)
    assert mixfix.label_accuracy is not None
    assert mixfix.label_accuracy > 0.9
    # Equal work: steps come from the whole set, not from the members.
    seen = [
        json.loads(line)["seen"]
        for name in "ab"
        for line in (Path(mixfix.folder).parent / name / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(seen) <= 9 * 16
    assert min(seen) > 9 * 12


def test_a_run_leaves_metrics_config_and_two_checkpoints_that_load_with_weights_only(store: Store) -> None:
    notes = Notes()
    result = train(store, config(store, name="left", epochs=2), loader_factory=loader_of, progress=notes)
    folder = Path(result.folder)
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [
        "best.pt", "config.json", "last.pt", "metrics.jsonl", "result.json",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = {
        "epoch", "loss", "lr", "label_accuracy", "test_top1", "chosen_top1", "seen", "images_per_second", "seconds",
        *(f"{group}{part}" for group in GROUPS for part in ("", "_right", "_wrong")),
    }  # fmt: skip
    assert [set(line) for line in lines] == [wanted, wanted]
    assert lines[0]["members"] == result.selected
    assert (result.dropped, result.absorbed_right) == (lines[-1]["dropped"], lines[-1]["absorbed_right"])
    assert result.best_top1 == max(line["test_top1"] for line in lines)
    assert result.last_top1 == lines[-1]["test_top1"]
    last = torch.load(folder / "last.pt", weights_only=True)
    assert last["meta"]["classes"] == list(CLASSES)
    assert last["meta"]["epoch"] == 2
    described = json.loads((folder / "config.json").read_text())
    assert described["selection"]["name"] == "clean"
    assert described["recipe"]["epochs"] == 2
    said = " ".join(notes.said)
    assert "Recipe tiny (asked for)" in said
    assert "kept in main memory" in said


def test_a_trained_run_opens_and_repeats_the_accuracy_it_wrote_down(store: Store) -> None:
    result = train(store, config(store, name="opened"), loader_factory=loader_of)
    for checkpoint, top1 in (("best", result.best_top1), ("last", result.last_top1)):
        run = open_run(Path(result.folder), checkpoint)
        logit = run.logits(draw(truth("test"), seed=2))
        assert logit.shape == (80, 4)
        assert (logit.argmax(1) == truth("test")).mean() == pytest.approx(top1)


def test_without_a_test_split_the_run_says_so_and_keeps_the_last_only(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", splits=("train",))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    notes = Notes()
    result = train(store, config(store, epochs=1), loader_factory=loader_of, progress=notes)
    assert result.best_top1 is result.last_top1 is result.test_split is None
    assert not (Path(result.folder) / "best.pt").exists()
    assert any("no test split" in text for text in notes.said)


def test_the_best_epoch_is_chosen_on_the_validation_split_and_the_test_split_is_reported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", splits=("train", "test", "val"))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    result = train(store, config(store, epochs=3), loader_factory=loader_of)
    lines = [json.loads(line) for line in (Path(result.folder) / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["chosen_top1"])
    assert (result.chosen_on, result.test_split) == ("val", "test")
    assert result.best_epoch == best["epoch"]
    assert result.best_top1 == best["test_top1"]
    assert [line["chosen_top1"] for line in lines] != [line["test_top1"] for line in lines]
    assert open_run(Path(result.folder), "best").chosen_on == "val"
    assert open_run(Path(result.folder), "last").chosen_on is None


def test_test_rows_without_a_known_truth_are_left_out(tmp_path: Path) -> None:
    """Half of the test images have no truth, and a given label that is wrong."""
    unknown = np.arange(sizes("test")) % 2 == 0
    store = make_store(tmp_path / "s.zarr", test_truth=np.where(unknown, -1, truth("test")), test_label=unknown * 3)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    result = train(store, config(store, epochs=2), loader_factory=loader_of)
    logit = open_run(Path(result.folder), "last").logits(draw(truth("test"), seed=2))
    right = logit.argmax(1) == truth("test")
    assert result.last_top1 == pytest.approx(right[~unknown].mean())


def test_an_epochs_order_and_its_first_step_draw_from_different_streams(store: Store, monkeypatch) -> None:
    """NumPy takes [seed, epoch] and [seed, epoch, 0] for one seed."""
    states = []
    original = np.random.default_rng

    def remember(seed: object) -> np.random.Generator:
        rng = original(seed)
        states.append(rng.bit_generator.state["state"]["state"])
        return rng

    monkeypatch.setattr(np.random, "default_rng", remember)
    train(store, config(store, name="streams", epochs=2), loader_factory=loader_of)
    assert len(states) > 20
    assert len(states) == len(set(states))


def test_the_newest_selection_is_the_default_and_bad_selections_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    split = store.split("train")
    split.write_result("selections", "newer", {"keep": np.arange(160) < 60}, {})
    assert train(store, config(store, epochs=1), loader_factory=loader_of).selected == 60
    with pytest.raises(StoreError, match="no selection named 'other'"):
        train(store, config(store, selection="other"), loader_factory=loader_of)
    split.write_result("selections", "empty", {"keep": np.zeros(160, bool)}, {})
    with pytest.raises(StoreError, match="keeps no sample"):
        train(store, config(store), loader_factory=loader_of)


def test_train_before_select_says_what_to_do(tmp_path: Path) -> None:
    import shutil

    store = make_store(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "train" / "selections")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    with pytest.raises(StoreError, match="cleanctl select") as raised:
        train(store, config(store), loader_factory=loader_of)
    assert raised.value.exit_code == 4
    assert not (tmp_path / "s.runs").exists()


def test_images_that_vanished_since_embed_are_left_out_with_a_warning(store: Store) -> None:
    def loader(split: str, spec: PixelSpec) -> MemoryLoader:
        broken = frozenset({1, 2, 4}) if split == "train" else frozenset({5})
        return MemoryLoader(draw(truth(split), seed=1), broken)

    for cache in ("ram", "none"):
        notes = Notes()
        result = train(
            store, config(store, name=f"v-{cache}", epochs=1, cache=cache), loader_factory=loader, progress=notes
        )
        assert result.last_top1 is not None
        assert any("3 images could" in text for text in notes.said), notes.said


def test_a_set_that_cannot_be_read_at_all_is_an_input_error(store: Store) -> None:
    def loader(split: str, spec: PixelSpec) -> MemoryLoader:
        return MemoryLoader(draw(truth(split), seed=1), frozenset(range(1000)))

    with pytest.raises(InputError, match="truncated"):
        train(store, config(store, name="gone"), loader_factory=loader)


def test_streamed_and_held_sets_give_the_same_batches() -> None:
    pixel = draw(truth("train"), seed=1)
    row = np.arange(3, 150)
    held = HeldPixels(torch.from_numpy(pixel[row]), np.ones(len(row), bool), "cpu")
    streamed = StreamedPixels(MemoryLoader(pixel), row, np.ones(len(row), bool), "cpu")
    rng = np.random.default_rng(0)
    wanted = [rng.integers(0, len(row), size) for size in (8, 8, 3, 8, 8, 8, 1, 5, 8)]
    for (ok_B, ours), (same_B, theirs) in zip(held.batches(wanted), streamed.batches(wanted), strict=True):
        assert ok_B.all()
        assert same_B.all()
        assert torch.equal(ours, theirs)


def test_the_set_goes_where_it_fits() -> None:
    assert place(50_000, 32, device="cpu", wanted="auto").where == "ram"
    assert place(10**9, 224, device="cpu", wanted="auto").where == "none"
    with pytest.raises(UsageError, match="--cache gpu"):
        place(10, 32, device="cpu", wanted="gpu")


def test_a_recipe_that_needs_imagenet_weights_downloads_nothing_unasked(store: Store) -> None:
    with pytest.raises(UsageError, match="--network-weights"):
        train(store, config(store, recipe="clothing1m", network="fastconv-w4", image_size=16, name="c1m"),
              loader_factory=lambda split, spec: MemoryLoader(
                  np.zeros((160, spec.size, spec.size, 3), np.uint8)))  # fmt: skip


def test_a_damaged_checkpoint_is_an_error_and_code_in_one_never_runs(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(StoreError, match="is damaged"):
        read_tensors(tmp_path / "state.pt")
    torch.save({"stop": StopFlag()}, tmp_path / "code.pt")
    with pytest.raises(StoreError, match="is damaged"):
        read_tensors(tmp_path / "code.pt")


def test_a_run_in_bf16_learns_and_keeps_float32_weights(store: Store) -> None:
    result = train(store, config(store, name="bf16", precision="bf16", epochs=2), loader_factory=loader_of)
    lines = [json.loads(line) for line in (Path(result.folder) / "metrics.jsonl").read_text().splitlines()]
    assert lines[1]["loss"] < lines[0]["loss"]
    weights = torch.load(Path(result.folder) / "last.pt", weights_only=True)["state_dict"]
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


def test_the_tests_recipe_is_complete() -> None:
    assert parse_recipe(RECIPE, "tiny").epochs == 3
