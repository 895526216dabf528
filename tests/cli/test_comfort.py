"""What makes the command line pleasant: near names, completion, a summary with the next command, narrow terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from cleanctl.api import import_arrays, select
from cleanctl.cli import app, complete
from cleanctl.config import ImportConfig, SelectConfig
from cleanctl.results import SelectionSummary
from cleanctl.results.select import ClassSummary, ConfusionCounts
from cleanctl.store import Store

CLASSES = ("automobile", "truck", "tabby cat")
WRONG = 0.3
NEXT = re.compile(r"(?m)^(?:Next: | {2})(cleanctl .*)$")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 600 rows: 30 % of automobile are labelled truck and the reverse, nothing else is wrong; two
    selections, and the folder of a run."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("comfort")
    true_N = np.arange(600) % 3
    wrong_N = (rng.random(600) < WRONG) & (true_N < 2)
    label_N = np.where(wrong_N, 1 - true_N, true_N)
    np.save(root / "x.npy", (np.eye(3, 16)[true_N] + 0.1 * rng.standard_normal((600, 16))).astype(np.float32))
    np.save(root / "y.npy", label_N)
    np.save(root / "t.npy", np.eye(3, 16, dtype=np.float32))
    np.save(root / "c.npy", np.arange(3))
    (root / "names.txt").write_text("\n".join(CLASSES))
    given = {"image_embeddings": "x.npy", "labels": "y.npy", "text_embeddings": "t.npy", "text_classes": "c.npy"}
    config = ImportConfig(**{name: root / file for name, file in given.items()}, classes=root / "names.txt")
    store = root / "cleanctl.zarr"
    import_arrays(config, store=store)
    select(SelectConfig(strategy="zeroshot.match", name="first", device="cpu"), store=store)
    select(SelectConfig(device="cpu"), store=store)
    (root / "cleanctl.runs" / "mixfix-intersection").mkdir(parents=True)
    (root / "cleanctl.runs" / "mixfix-intersection" / "config.json").write_text("{}")
    return root


@pytest.fixture
def work(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CLEANCTL_STORE", raising=False)
    return folder


def run(*words, code=0):
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return result


# ---- near names

NEAR = [
    (["slect"], 2, "cleanctl has no command 'slect'; did you mean 'select'?"),
    (["prompts", "chek"], 2, "has no command 'chek'; did you mean 'check'?"),
    (["select", "--theta-gm", "0.4"], 2, "select has no option --theta-gm; did you mean '--theta-gmm'?"),
    (["select", "--epochs", "3"], 2, "select has no option --epochs. cleanctl adapt and cleanctl train have it."),
    (["select", "--strategy", "intersectoin"], 2, "did you mean 'intersection'?"),
    (["select", "--strategy", "logistic.los"], 2, "did you mean 'loss'?"),
    (["select", "--strategy", "Zeroshot.loss"], 2, "did you mean 'zeroshot'?"),
    (["select", "--fallback", "lowst"], 2, "--fallback is 'lowst'; did you mean 'lowest'?"),
    (["select", "--split", "trian"], 4, "has no split 'trian'; it has: train; did you mean 'train'?"),
    (["select", "--preset", "webvison"], 2, "; did you mean 'webvision'?"),
    (["diff", "first", "intersecton"], 4, "no selection named 'intersecton'; it has: first, intersection; did"),
    (["eval", "--run", "mixfix-intersecton"], 4, "did you mean 'mixfix-intersection'?"),
    (["adapt", "--preset", "cifar10n"], 2, "did you mean 'cifar100n'?"),
    (["adapt", "--tune", "class-vector"], 2, "did you mean 'class-vectors'?"),
    (["train", "--method", "mixfx"], 2, "did you mean 'mixfix'?"),
    (["prompts", "check", "cifar10", "--model", "ViT-B-23"], 2, "did you mean 'ViT-B-32'?"),
    (["embed", ".", "--dataset", "cifar-10"], 2, "did you mean 'cifar10'?"),
    (["embed", ".", "--noise", "symetric:0.4"], 2, "did you mean 'symmetric'?"),
    (["export", "out", "--to", "weddataset"], 2, "did you mean 'webdataset'?"),
    (["export", "out", "--class", "Truk"], 2, "'Truk' is no class of the store; did you mean 'truck'?"),
    (["export", "out", "--rule", "zeroshot.los=kept"], 2, "did you mean 'zeroshot.loss'?"),
    (["prompts", "show", "cifar1O"], 3, "did you mean 'cifar10'?"),
    (["reproduce", "figure33"], 2, "did you mean 'figure3'?"),
    (["select", "joint"], 2, "no word without an option: 'joint'. Did you mean: cleanctl select --strategy joint "),
    (["diff", "a", "b", "c"], 2, "cleanctl diff takes no more words: 'c'. See: cleanctl diff --help"),
    (["help"], 2, "Type cleanctl [COMMAND] --help."),
    (["version"], 2, "Type cleanctl --version."),
    (["--store", "x"], 2, "no option --store. It is an option of commands: cleanctl COMMAND --store."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "told"), NEAR, ids=lambda value: " ".join(value) if isinstance(value, list) else None
)
def test_a_name_that_is_nearly_right_gets_the_right_one_offered(words, code, told, work):
    said = " ".join(run(*words, code=code).stderr.split())
    assert told in said
    assert said.count("error:") == 1


def test_a_mistyped_option_is_told_as_json_too(work):
    result = run("select", "--theta-gm", "1", "--json", code=2)
    error = json.loads(result.stdout)["error"]
    assert (error["exit_code"], error["do"]) == (2, "See: cleanctl select --help")


# ---- completion


def completions(line, shell="complete_zsh", **environment):
    """What the shell is offered behind `line`, as it asks the program."""
    words = line.split(" ")
    variables = {"_CLEANCTL_COMPLETE": shell, "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    told = (
        CliRunner()
        .invoke(app, [], env=variables | {"_TYPER_COMPLETE_ARGS": line, **environment}, prog_name="cleanctl")
        .stdout
    )
    if shell == "complete_bash":
        return told.split("\n")[:-1]
    return re.findall(r'(?m)^(?:_arguments .*?\(\()?"([^"]*)"', told)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cleanctl sel", ["select"]),
        ("cleanctl train --selection ", ["intersection", "first", "all"]),
        ("cleanctl diff fi", ["first"]),
        ("cleanctl eval --run ", ["mixfix-intersection", "all"]),
        ("cleanctl export out --class t", ["truck", "tabby cat"]),
        ("cleanctl select --fallback ", ["best", "none", "lowest"]),
        ("cleanctl export out --to c", ["csv", "copies", "cleanlab", "coco"]),
        ("cleanctl adapt --preset cifar", ["cifar100", "cifar100n"]),
        ("cleanctl select --store ", ["cleanctl.zarr"]),
        ("cleanctl embed d --model convnext_xx", ["convnext_xxlarge", "convnext_xxlarge_320"]),
    ],
)  # fmt: skip
def test_a_tab_offers_the_names_there_are(line, offered, work):
    assert completions(line) == offered


def test_bash_gets_names_that_it_takes_as_one_word(work):
    assert completions("cleanctl export out --class ta", "complete_bash") == [r"tabby\ cat"]


def test_completion_follows_the_store_that_the_line_names(work, tmp_path):
    assert completions(f"cleanctl train --store {tmp_path}/none.zarr --selection ") == ["all"]
    assert completions("cleanctl train --selection ", CLEANCTL_STORE=f"{tmp_path}/none.zarr") == ["all"]


def test_completion_loads_nothing_heavy(work):
    heavy = "('torch', 'zarr', 'numpy', 'open_clip', 'pyarrow')"
    code = f"import sys, atexit; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\n"
    code += "from cleanctl.cli import app; app(prog_name='cleanctl')"
    line = {"_CLEANCTL_COMPLETE": "complete_bash", "COMP_WORDS": "cleanctl train --selection ", "COMP_CWORD": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **line})
    assert done.stdout.split() == ["intersection", "first", "all", "[]"]


def test_completion_knows_what_the_store_knows(work):
    """complete.py reads a store as JSON; the store itself is asked here."""
    store = Store.open(work / "cleanctl.zarr")
    split = store.split("train")
    assert tuple(complete.splits(store.path)) == store.split_names()
    assert complete.selections(store.path) == list(split.selections.attributes())[::-1]
    assert tuple(complete.classes(store.path)) == store.classes
    assert complete.rules(store.path) >= ["zeroshot.match"]


def test_a_damaged_store_offers_nothing(tmp_path):
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text("{")
    assert complete.classes(tmp_path / "s.zarr") == complete.splits(tmp_path / "s.zarr")[1:] == []


def test_every_option_that_names_something_of_a_store_completes():
    """Of every verb, so that a verb that is added has it without a word."""
    missing = []

    def walk(group, above):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{name} ")
                continue
            for one in command.params:
                flag = next((flag for flag in one.opts if flag.startswith("--")), one.metavar)
                if flag in ("--store", *complete.BY_FLAG) and one._custom_shell_complete is None:
                    missing.append(f"{above}{name} {flag}")

    walk(typer.main.get_command(app), "")
    assert missing == []


# ---- the sentence of select, and the summary


def test_select_ends_with_a_sentence_of_stored_numbers(work):
    """From rows with planted errors through the store to the words."""
    told = run("select", "--device", "cpu").stdout
    stored = Store.open(work / "cleanctl.zarr").split("train").read_result("selections", "intersection")
    summary = stored.attributes["summary"]
    label_N, true_N = np.load(work / "y.npy"), np.arange(600) % 3
    wrong = round(summary["noise"] * summary["count"])
    assert abs(wrong - int((label_N != true_N).sum())) <= 3
    kept = int(stored.arrays["keep"].sum())
    assert f"Of 600 labels about {wrong} look wrong; {kept:,} kept; mostly automobile ↔ truck." in told
    assert NEXT.findall(told) == ["cleanctl report --open", "cleanctl export clean.csv"], "arrays train no network"


def test_arrays_without_prompts_are_followed_by_a_strategy_that_needs_none(folder, tmp_path):
    arrays = ("--image-embeddings", f"{folder}/x.npy", "--labels", f"{folder}/y.npy")
    store = ("--store", f"{tmp_path}/s.zarr")
    told = run("import", *arrays, *store).stdout
    assert "600 rows are imported" in told
    following = NEXT.findall(told)
    assert following == NEXT.findall(run("status", *store).stdout)
    assert following == [f"cleanctl select --strategy logistic.consistency --store {tmp_path}/s.zarr"]
    assert following[0].removesuffix(f" --store {tmp_path}/s.zarr") in run("select", *store, code=4).stderr
    assert run(*shlex.split(following[0])[1:], "--device", "cpu").exit_code == 0


def summary_of(*, noise, pairs, count=40_000, kept=16_164):
    """pairs: (given, likely) → samples."""
    names = ("automobile", "truck", "cat", "dog")
    classes = tuple(ClassSummary(name=name, count=1, kept=1, topped_up=0, noise=noise) for name in names)
    given, likely = zip(*pairs) if pairs else ((), ())
    confusion = ConfusionCounts(given=given, likely=likely, samples=tuple(pairs.values()), pairs=len(pairs))
    return SelectionSummary(
        name="s", strategy="s", split="train", count=count, kept=kept, failed=0, noise=noise, evidence="zeroshot",
        classes=classes, scores=(), rules=(), votes=(), suggested_other=0, confused=(), confusion=confusion,
        deviations=(), parameters={}, out=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"noise": 0.4479, "pairs": {(0, 0): 9000.0, (0, 1): 4000.0, (1, 0): 3500.0, (2, 3): 2000.0}},
         "Of 40,000 labels about 17,900 look wrong; 16,164 kept; mostly automobile ↔ truck."),
        ({"noise": 0.4479, "pairs": {(1, 0): 900.0, (0, 1): 400.0, (2, 3): 800.0, (3, 2): 700.0, (0, 2): 600.0}},
         "Of 40,000 labels about 17,900 look wrong; 16,164 kept; most often cat ↔ dog."),
        ({"noise": 0.1, "pairs": {(1, 0): 900.0, (0, 1): 40.0}},
         "Of 40,000 labels about 4,000 look wrong; 16,164 kept; mostly automobile labelled truck."),
        ({"noise": 0.0, "pairs": {(1, 1): 900.0}}, "Of 40,000 labels none looks wrong; 16,164 kept."),
        ({"noise": None, "pairs": {}}, "Of 40,000 labels 16,164 kept."),
        ({"noise": 0.5, "pairs": {(0, 1): 3.0, (1, 0): 3.0}, "count": 12, "kept": 6},
         "Of 12 labels about 6 look wrong; 6 kept; mostly automobile ↔ truck."),
    ],
)  # fmt: skip
def test_the_sentence_says_no_more_than_the_numbers(given, sentence):
    assert summary_of(**given).sentence == sentence


@pytest.mark.parametrize(
    "words",
    [
        ["select", "--device", "cpu"],
        ["status"],
        ["diff", "first", "intersection"],
        ["eval"],
        ["export", "never-made.csv", "--dry-run"],
        ["embed", "--show-failures"],
        ["prompts", "show"],
        ["prompts", "show", "cifar10", "--class", "cat"],
        ["prompts", "check", "cifar10"],
    ],
    ids=" ".join,
)
def test_a_verb_ends_with_what_to_type_next(words, work):
    """Which the command line takes: no option in it is unknown, and the store that was named is named again."""
    group = typer.main.get_command(app)
    takes_store = words[0] != "prompts"
    given = ["--store", "cleanctl.zarr"] if takes_store else []
    told = run(*words, *given).stdout
    last = told.strip().splitlines()[-1]
    following = NEXT.findall(told)
    if "--dry-run" in words:
        assert last == "Next: the same command without --dry-run"
        return
    assert last.endswith(following[-1])
    for command in following:
        _, verb, *rest = shlex.split(command)
        assert not takes_store or rest[-2:] == ["--store", "cleanctl.zarr"]
        command = group.commands[verb]
        if hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(verb, rest)


# ---- terminals, logs, pipes


def on_a_terminal(words, cwd, width, **environment):
    """What a terminal of this width gets on stdout and stderr."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(width), "LINES": "50", "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "cleanctl", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=variables
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:
            break
        if not part:
            break
        told += part
    assert process.wait(timeout=120) == 0, told.decode()
    os.close(ours)
    return told.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_gets_lines_that_fit_and_numbers_that_are_whole(width, work):
    told = on_a_terminal(["diff", "first", "intersection"], work, width, NO_COLOR="1")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert max(len(line) for line in plain.splitlines()) <= width, plain
    assert "…" not in plain
    assert "─" * width in plain, "the summary stands between two lines"
    commands = re.search(r"Next:\n(.*?)\n─", plain, re.S)[1].replace("\\\n", " ").splitlines()
    assert [" ".join(command.split()) for command in commands] == [
        "cleanctl report --selection intersection --against first --open",
        "cleanctl export clean.csv",
    ], "a command that is folded can still be copied"


def test_no_color_is_obeyed_and_colour_is_the_default_of_a_terminal(work):
    diff = ["diff", "first", "intersection"]
    assert COLOUR.search(on_a_terminal(diff, work, 80))
    assert not COLOUR.search(on_a_terminal(diff, work, 80, NO_COLOR="1"))


def test_a_pipe_gets_words_alone_and_commands_on_one_line(work):
    done = subprocess.run(
        [sys.executable, "-m", "cleanctl", "diff", "first", "intersection", "--store", "cleanctl.zarr"],
        capture_output=True, text=True, cwd=work, env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    assert "\x1b" not in done.stdout + done.stderr
    assert "─" not in done.stdout
    assert done.stdout.endswith("\n  cleanctl export clean.csv --store cleanctl.zarr\n")


def test_a_reader_that_goes_away_is_no_error(work):
    """As `| head -1` does under `set -o pipefail`."""
    command = [sys.executable, "-m", "cleanctl", "status"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, "")


def test_a_disk_that_takes_nothing_is_told_in_words(work):
    """Not even the lock's own line: a file may have no byte, as on a disk that is full."""
    command = f"ulimit -f 0; exec {sys.executable} -m cleanctl select --strategy zeroshot.match --name full"
    done = subprocess.run(["bash", "-c", command], cwd=work, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert "full" not in Store.open(work / "cleanctl.zarr").split("train").results("selections")


def test_help_is_grouped_where_it_is_long():
    """No heading has more than fifteen options below it, and a verb with more than nine has headings."""
    from collections import Counter

    def commands(group):
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    for command in commands(typer.main.get_command(app)):
        panels = Counter(getattr(one, "rich_help_panel", None) for one in command.params)
        assert max(panels.values()) <= 15, command.name
        assert panels[None] <= 9, command.name
