"""One file of a store, of what lies beside it or of its run is damaged, then every verb works on: it is told in words
with the command that repairs it, or no number differs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cleanctl import api
from cleanctl.config import EmbedConfig, EvalConfig, SelectConfig, TrainConfig
from cleanctl.errors import CleanctlError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed")

EVAL = EvalConfig(device="cpu", loader="ffcv", workers=1)
SELECT = SelectConfig(device="cpu")
TRAIN = TrainConfig(
    device="cpu", loader="ffcv", workers=1, recipe="cpu-small", epochs=1, image_size=32, batch_size=32, name="run"
)
TIMES = {"images_per_second", "seconds"}

Damage = Callable[[bytes], bytes] | None


def flip(data: bytes) -> bytes:
    return flip_at(data, len(data) // 2)


def flip_at(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"\0"


DAMAGES: dict[str, Damage] = {
    "deleted": None,
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "flipped": flip,
}


class Made(NamedTuple):
    folder: Path
    embed: EmbedConfig
    numbers: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model, web_folder) -> Made:
    folder = tmp_path_factory.mktemp("journey")
    embed = EmbedConfig(
        source=web_folder, model=f"local-dir:{tiny_model}", prompts="photo", loader="ffcv", workers=1, device="cpu"
    )
    store = folder / "cleanctl.zarr"
    api.embed(embed, store=store)
    api.select(SELECT, store=store)
    api.train(TRAIN, store=store)
    numbers, errors = look(folder)
    assert not errors
    assert numbers["eval"]["runs"]
    assert set(numbers["eval"]) > {"selection", "zero_shot"}
    return Made(folder, embed, numbers)


def look(folder: Path) -> tuple[dict[str, Any], dict[str, CleanctlError]]:
    """verb → its numbers, or the error that it ended in. Any other exception is a failure."""
    store = folder / "cleanctl.zarr"
    verbs: dict[str, Callable[[], Any]] = {
        "eval": lambda: api.evaluate(EVAL, store=store).to_json(),
        "table": lambda: api.read_selection(store).to_pylist(),
        "train": lambda: without_times(api.train(TRAIN, store=store).to_json()),
        "select": lambda: (api.select(SELECT, store=store), api.read_selection(store).to_pylist())[1],
    }
    numbers, errors = {}, {}
    for verb, run in verbs.items():
        try:
            numbers[verb] = run()
        except CleanctlError as error:
            errors[verb] = error
    assert all(error.do for error in errors.values()), errors
    return numbers, errors


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in TIMES | {"folder"}}


def same(verb: str, there: Any, expected: Any) -> bool:
    """Apart from what eval leaves out and says so."""
    if verb != "eval":
        return repr(there) == repr(expected)
    told = " ".join(there["notes"])
    parts = {"selection", "zero_shot", "runs"}
    if "No finished run" in told:
        parts -= {"runs"}
    return all(repr(there[part]) == repr(expected[part]) for part in parts)


def repair(made: Made, folder: Path, error: CleanctlError) -> None:
    """Runs the command that the error names."""
    store = folder / "cleanctl.zarr"
    if "embed --replace" in error.do:
        shutil.rmtree(store)
        api.embed(made.embed, store=store)
        api.select(SELECT, store=store)
    elif "cleanctl embed" in error.do:
        api.embed(made.embed, store=store)
    elif "cleanctl select" in error.do or "Make one: " in error.do:
        api.select(SELECT, store=store)
    else:
        assert "cleanctl train" in error.do, error
        config = TrainConfig(**{**vars(TRAIN), "resume": "--no-resume" not in error.do})
        api.train(config, store=store)


def check(made: Made, path: Path, name: str, damage: Damage) -> str:
    """How it was told, "" if nothing was; asserts what the module says."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(made.folder, path)
    file = path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    numbers, errors = look(path)
    for verb, there in numbers.items():
        assert same(verb, there, made.numbers[verb]), (name, verb, "differs without a word")
    told = " | ".join(f"{verb}: {error}" for verb, error in errors.items())
    for _ in range(3):
        if not errors:
            break
        repair(made, path, next(iter(errors.values())))
        numbers, errors = look(path)
    assert not errors, (name, told, errors)
    for verb, there in numbers.items():
        assert same(verb, there, made.numbers[verb]), (name, verb, told)
    return told


def files_of(made: Made) -> list[str]:
    return sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file())


def test_a_flipped_sample_and_a_deleted_best_are_noticed(made, tmp_path):
    beton = (made.folder / "cleanctl.test.beton").read_bytes()
    sample = beton.index(b"\xff\xd8") + 900  # inside the first JPEG's coded pixels
    assert check(made, tmp_path / "w", "cleanctl.test.beton", lambda data: flip_at(data, sample)) == ""
    assert "keeps no best.pt" in check(made, tmp_path / "w", "cleanctl.runs/run/best.pt", None)


KINDS = {
    "cleanctl.test.beton": "cut",
    "cleanctl.test.beton.parquet": "flipped",
    "cleanctl.zarr/zarr.json": "flipped",
    "cleanctl.zarr/train/label/c/0": "deleted",
    "cleanctl.zarr/text/embedding/zarr.json": "emptied",
    "cleanctl.runs/run/last.pt": "flipped",
    "cleanctl.runs/run/result.json": "deleted",
    "cleanctl.runs/run/config.json": "cut",
}


@pytest.mark.parametrize("name", KINDS)
def test_one_damage_of_each_kind_of_file(made, tmp_path, name):
    check(made, tmp_path / "w", name, DAMAGES[KINDS[name]])


def damage_each(made: Made, path: Path, cases: list[tuple[str, str]]) -> None:
    failed = []
    for name, way in cases:
        try:
            check(made, path, name, DAMAGES[way])
        except Exception as error:  # noqa: BLE001 - all of them are shown
            failed.append(f"{name} {way}: {type(error).__name__} {str(error)[:300]}")
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.parametrize("way", DAMAGES)
def test_every_file_beside_the_store_in_every_way(made, tmp_path, way):
    names = [name for name in files_of(made) if not name.startswith("cleanctl.zarr/")]
    assert len(names) >= 8
    damage_each(made, tmp_path / "w", [(name, way) for name in names])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_file_of_the_store(made, tmp_path, part):
    """Each in one way, which tests/store/test_damage.py does in every way without the verbs."""
    names = [name for name in files_of(made) if name.startswith("cleanctl.zarr/")]
    ways = list(DAMAGES)
    cases = [(name, ways[(index // 4 + index) % 4]) for index, name in enumerate(names)]
    damage_each(made, tmp_path / "w", cases[part::4])
