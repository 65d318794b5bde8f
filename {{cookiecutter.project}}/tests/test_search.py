"""Searching parameters, with Optuna itself and a model of a few thousand weights."""

import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from slm.config.loader import load_yaml, parse_yaml
from slm.config.params import load_params
from slm.errors import UserError
from slm.experiments import search
from slm.experiments.search import SPACE, WORK, open_study, ranked, search_fingerprint
from slm.experiments.search_space import Space
from slm.files import write_text
from slm.task.records import TASK
from tests.conftest import QUICK, ROOT

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SEARCHED = """\
rungs: [0.25, 1]
most_parameters_m: null
parameters:
  distill.layers: {low: 2, high: 3}
  distill.learning_rate: {low: 1.0e-9, high: 2.0e-2, log: true}
"""
DISTRIBUTIONS = {
    "distill.layers": IntDistribution(2, 3),
    "distill.learning_rate": FloatDistribution(1e-9, 2e-2, log=True),
}
# No process of Python's opens the test set: not for its words, not for its hash.
SEALED = """
import sys
def refuse(event, args):
    if event == "open" and str(args[0]).endswith("test.jsonl"):
        raise PermissionError(f"a search has opened {args[0]}")
sys.addaudithook(refuse)
"""


@pytest.fixture
def locked(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny project with its dvc.lock, as the current folder."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_text(SPACE, SEARCHED)
    for command in (
        ["git", "init", "-q"],
        *(
            [sys.executable, "-m", "dvc", *words.split()]
            for words in ("init -q", "commit -fq fetch check teach synthesize validate")
        ),
    ):
        subprocess.run(command, check=True)
    return project


def study_of() -> optuna.Study:
    WORK.mkdir(parents=True, exist_ok=True)
    return open_study(
        f"sqlite:///{WORK.as_posix()}/trials.db",
        search_fingerprint(Path(), load_yaml(SPACE, Space, {"params": load_params()})),
    )


def ended(
    layers: int, rate: float, score: float, size: float, **constraints: float
) -> optuna.trial.FrozenTrial:
    values = {"distill.layers": layers, "distill.learning_rate": rate}
    facts = {"values": values, "score_low": 0.0, "score_high": 1.0, "parameters_m": size}
    rules = {f"constraints:{name}": value for name, value in constraints.items()}
    return create_trial(
        value=score,
        params=values,
        distributions=DISTRIBUTIONS,
        intermediate_values={250: score},
        user_attrs=facts,
        system_attrs=rules,
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("distill.layers", "distill.layer", 4, "params.yaml has no such parameter"),
        ("distill.layers", "teach.epochs", 4, "only distill and finetune are searched"),
        ("low: 2, high: 3", "low: 2.5, high: 3", 4, "whole numbers"),
        ("low: 2, high: 3", "low: 0, high: 3", 4, "0 is refused: Input should be greater than or equal to 1"),
        ("low: 2, high: 3", "low: 3, high: 2", 4, "low must be below high"),
        ("low: 2, high: 3", "low: 2, hihg: 3", 4, "hihg is unknown"),
        ("low: 2, high: 3", "low: 2, high: 3, choices: [2]", 4, "either low and high, or choices"),
        ("high: 2.0e-2", "high: 2", 5, "2 is refused: Input should be less than or equal to 0.1"),
        ("log: true", "log: true, step: 0.1", 5, "log needs low above 0, and no step"),
        (
            "distill.layers: {low: 2, high: 3}",
            "finetune.method: {low: 2, high: 3}",
            4,
            "'full' is not a number: give choices",
        ),
        (
            "distill.layers: {low: 2, high: 3}",
            "finetune.method: {choices: [full, lori]}",
            4,
            "lori is refused",
        ),
        ("[0.25, 1]", "[0.25, 0.5]", 1, "shares must rise from above 0 to 1"),
        ("parameters:", "parameters: [", 5, "not YAML"),
    ],
)
def test_a_wrong_space_is_refused_with_its_line(old: str, new: str, line: int, message: str, tmp_path: Path):
    (tmp_path / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    search.rewrite(QUICK, tmp_path / "params.yaml")
    assert old in SEARCHED
    with pytest.raises(UserError) as error:
        parse_yaml(
            SEARCHED.replace(old, new, 1),
            "search.yaml",
            Space,
            {"params": load_params(tmp_path / "params.yaml")},
        )
    assert str(error.value).startswith(f"search.yaml:{line}: ") and message in str(error.value)


def test_the_space_that_ships_is_valid(tmp_path: Path):
    (tmp_path / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    search.rewrite(
        {name: QUICK[name] for name in ("models", "synthesize", "package")}, tmp_path / "params.yaml"
    )
    assert load_yaml(ROOT / SPACE, Space, {"params": load_params(tmp_path / "params.yaml")}).parameters


def test_the_best_is_small_enough_and_writes_its_own_lines_only(locked: Path):
    study = study_of()
    for trial in (
        ended(3, 2e-2, 0.9, 80, parameters_m=20.0),
        ended(3, 1e-2, 0.8, 60),
        ended(2, 1.23e-3, 0.8, 50),
        ended(2, 1e-9, 0.1, 50),
    ):
        study.add_trial(trial)
    assert [t.number for t in ranked(study)] == [2, 1, 3]
    before = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    search.search(0, search.STORAGE, search.SPACE, apply=True)
    after = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    changed = [row for row in difflib.ndiff(before, after) if row[0] in "+-"]
    assert [row.split("#")[0].split() for row in changed] == [
        ["-", "layers:", "3"],
        ["+", "layers:", "2"],
        ["-", "learning_rate:", "0.01"],
        ["+", "learning_rate:", "0.00123"],
    ]
    assert changed[1].endswith(changed[0].split("#")[1])  # its comment is still there


def test_what_a_score_depends_on_makes_a_study_of_its_own(locked: Path):
    def key(space: str = SEARCHED) -> str:
        return search_fingerprint(Path(), parse_yaml(space, "s", Space, {"params": load_params()}))

    first = key()
    search.rewrite({"distill": {"layers": 2}, "measure": {"rounds": 9}})  # searched, and of no concern
    assert key() == first
    assert key(SEARCHED.replace("0.25", "0.5")) != first
    for path in (TASK / "validation.jsonl", Path("slm/task/metrics.py"), Path("pipeline/distill.py")):
        was = path.read_bytes()
        path.write_bytes(was + b"\n")
        assert key() != first
        path.write_bytes(was)
    search.rewrite({"distill": {"kl_weight": 0.5}})
    assert key() != first


def test_an_interrupted_trial_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    space = Space.model_construct(rungs=[1.0], most_parameters_m=None, parameters={})

    class Stopped(search.Search):
        def climb(self, trial, *_):
            trial.report(0.5, 250)
            raise KeyboardInterrupt

    study = open_study("sqlite:///trials.db", "key")
    with pytest.raises(KeyboardInterrupt):
        study.optimize(Stopped(space, None, "key"))
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[1].intermediate_values == {250: 0.5}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql+psycopg://me:secret@localhost/x", "the database's driver is not installed"),
        ("nonsense", "correct the address"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(address: str, message: str):
    with pytest.raises(UserError) as error:
        open_study(address, "key")
    assert message in str(error.value) and "secret" not in str(error.value)


@pytest.mark.slow
def test_a_bad_trial_ends_early_and_a_killed_one_goes_on_and_none_opens_the_test_set(
    locked: Path, tmp_path: Path
):
    write_text(tmp_path / "sealed" / "sitecustomize.py", SEALED)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "sealed"), "PATH": path}
    peek = subprocess.run(
        [sys.executable, "-c", "open('task/test.jsonl')"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "a search has opened task/test.jsonl" in peek.stderr
    # A killed search's trial counts as dead after seconds, not minutes.
    program = (
        "from slm.experiments import search; search.HEARTBEAT_S, search.DEAD_S = 1, 3; "
        "search.search(5, search.STORAGE, search.SPACE, False)"
    )

    def start() -> subprocess.Popen:
        words = [sys.executable, "-c", program]
        return subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    study = study_of()
    for _ in range(3):
        study.add_trial(ended(3, 1e-2, 1.0, 60))
    study.enqueue_trial({"distill.layers": 2, "distill.learning_rate": 1e-9})  # learns nothing
    study.enqueue_trial({"distill.layers": 3, "distill.learning_rate": 1e-2})
    killed, said = start(), []
    for line in killed.stdout:
        said.append(line)
        if "trial 4: 0.25 of the epochs" in line:
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert "trial 3: below the median, ends here\n" in said and said.count("Running stage 'distill':\n") == 2
    bad = study.trials[3]
    assert (bad.state, list(bad.intermediate_values)) == (
        TrialState.PRUNED,
        [250],
    ) and "failed" not in bad.user_attrs

    time.sleep(4)
    again, _ = (resumed := start()).communicate()
    assert resumed.returncode == 0
    dead, retried = study.trials[4:]
    assert (dead.state, retried.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert retried.params == dead.params and retried.value == 1.0  # it has learnt its two labels
    # with all epochs: what a quarter of them gives was known
    assert again.count("Running stage 'distill'") == 1
    assert "1 more were ended early, 0 failed" in again
    assert not list(
        (WORK / search_fingerprint(Path(), load_yaml(SPACE, Space, {"params": load_params()}))).iterdir()
    )
    assert not (locked / "models" / "distilled").exists()


@pytest.mark.slow
def test_two_machines_share_a_study(locked: Path, tmp_path: Path):
    """Each with a checkout of its own, begun at the same moment on a database that is empty."""
    other = tmp_path / "other"
    shutil.copytree(locked, other)
    address = f"sqlite:///{(tmp_path / 'shared.db').as_posix()}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = [sys.executable, "-m", "slm", "search", "--trials", "4", "--storage", address]
    both = [
        subprocess.Popen(
            words,
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder in (locked, other)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = open_study(
        address, search_fingerprint(Path(), load_yaml(SPACE, Space, {"params": load_params()}))
    ).trials
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert 4 <= len(trials) <= 5  # each ends the trial that it is at
    ran = [{int(number) for number in re.findall(r"trial (\d+): distill", text)} for text in said]
    assert ran[0] and ran[1] and not ran[0] & ran[1] and ran[0] | ran[1] == {t.number for t in trials}
    asked_first = {"distill.layers": 3, "distill.learning_rate": 0.01}  # what params.yaml says
    assert [t.params for t in trials].count(asked_first) == 1
