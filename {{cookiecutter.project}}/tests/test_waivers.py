"""Waivers: what is let through, for how long, and what no waiver and no pull request can let through."""

import json
import subprocess
from datetime import date
from pathlib import Path

import pytest

from slm.errors import UserError
from slm.export.packaging import with_waivers
from slm.verdict.comment import comment
from slm.verdict.contract import Contract, Gate, Released, load_contract
from slm.verdict.facts import waivers_in_force
from slm.verdict.judged import Judged
from slm.verdict.registry import BUILT_IN
from slm.verdict.rows import Row, Severity, Verdict, as_markdown, headline, rows_of, waivers_of
from slm.verdict.waivers import Waiver, load_waivers, waive

ROOT = Path(__file__).parents[1]
CONTRACT = Contract(
    gates=[Gate(name="score", severity="block", metric="shipped.score_low", at_least=0.6)],
    released=Released(
        margin=0.03, best_margin=0.045, time=1.15, memory=1.15, weights=1.02, slice_size=30, slice_alpha=0.05
    ),
)
GOOD = 'waivers:\n  - {gate: score, owner: ada, reason: "half the labels | moved", until: 2030-01-31}\n'
LAST = date(2030, 1, 31)


def failed(name: str = "score", severity: Severity = "block") -> Row:
    return Row(name, severity, False, 0.5, 0.6, "too low")


def waiver(**changes: object) -> Waiver:
    return Waiver(
        **{"gate": "score", "owner": "ada", "reason": "half the labels | moved", "until": LAST} | changes
    )


def judged(rows: list[Row], today: date) -> Verdict:
    return Verdict(waive(rows, [waiver()], today), {})


def test_a_waived_gate_refuses_nothing_until_its_last_day_is_over():
    result = judged([failed()], LAST)
    assert result.passed and result.gates[0].passed is False
    assert result.gates[0].waived == {
        "owner": "ada",
        "reason": "half the labels | moved",
        "until": "2030-01-31",
    }
    late = judged([failed()], date(2030, 2, 1))
    assert not late.passed and late.gates[0].waived is None
    assert late.gates[0].why == "too low; the waiver of ada ended on 2030-01-31"


def test_a_waiver_lets_through_the_gate_that_it_names_and_no_other():
    result = judged([failed(), failed("time")], LAST)
    assert not result.passed and headline(result) == "The model is refused: time."


def test_what_holds_warns_or_does_not_apply_needs_no_waiver():
    rows = [Row("score", "block", ok, 1, 0, "") for ok in (True, None)] + [failed(severity="warn")]
    assert waivers_of(judged(rows, LAST)) == []


def test_waivers_in_force_are_shown_wherever_the_verdict_is(task):
    result = judged([failed()], LAST)
    said = "waived by ada until 2030-01-31: half the labels | moved"
    assert headline(result) == "The model passes its gates, except waived gates: score."
    assert rows_of(result)[1][1] == "waived" and said in rows_of(result)[1][4]
    ladder = {"rungs": []}
    text = as_markdown(result, ladder | {"rungs": [RUNG]})
    assert "## Waived" in text and said in text
    # the table keeps its columns
    assert "| too low (waived by ada until 2030-01-31: half the labels \\| moved) |" in text
    shown = comment(Judged(result))
    assert "### Waived" in shown and "half the labels &#124; moved" in shown
    card = with_waivers("# name\n\n## Limits\n\nIt answers.\n", waivers_of(result))
    assert card.index("score: waived by ada") < card.index("## Limits")
    assert with_waivers(card, []) == card


RUNG = {"name": "teacher", "score": 0.7, "score_low": 0.6, "score_high": 0.8, "n": 9, "valid_rate": 1.0}
RUNG |= dict.fromkeys(("request_ms_p50", "rss_mb", "weights_mb"))


WRONG = {
    "integrity": ("gate: score,", "gate: 'integrity: score',", "cannot be waived"),
    "the package itself": ("gate: score,", "gate: package,", "cannot be waived"),
    "unknown gate": (
        "gate: score,",
        "gate: scroe,",
        "no gate has this name; there are: score, not worse than released, no slice worse",
    ),
    "a gate that never refuses": ("gate: score,", "gate: bytes of the commit,", "cannot be waived"),
    "unknown key": ("owner: ada,", "owner: ada, gates: all,", "waivers.0.gates is unknown"),
    "nobody": ("owner: ada,", "owner: ' ',", "waivers.0.owner is ' '"),
    "no reason": ('reason: "half the labels | moved", ', "", "waivers.0.reason is missing"),
    "no end": (", until: 2030-01-31", "", "waivers.0.until is missing"),
    "no date": ("2030-01-31", "never", "waivers.0.until is 'never'"),
    "a number for a date": ("2030-01-31", "20300131", "no ISO date"),
    "two for one gate": (
        "waivers:\n",
        "waivers:\n  - {gate: score, owner: bob, reason: x, until: 2031-01-01}\n",
        "name the same gate",
    ),
    "no YAML": ("waivers:\n", "waivers: [\n", "not YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_waiver_is_refused_with_its_line(name: str, tmp_path: Path):
    old, new, said = WRONG[name]
    assert old in GOOD
    path = tmp_path / "waivers.yaml"
    path.write_text("# a comment\n" + GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_waivers(CONTRACT, path)
    assert said in str(error.value)
    line = str(error.value).removeprefix(str(path)).split(":")[1]
    assert int(line) in ((2,) if name == "two for one gate" else (3, 4, 5))


def test_no_gate_of_the_contract_takes_the_name_of_one_that_every_verdict_has():
    for name in (*BUILT_IN, "integrity: anything"):
        with pytest.raises(ValueError, match="every verdict already has a gate"):
            Contract(
                gates=[Gate(name=name, severity="warn", metric="shipped.score", at_least=0.0)],
                released=CONTRACT.released,
            )


def test_the_waivers_of_this_project_are_valid():
    load_waivers(load_contract(ROOT / "gates.yaml"), ROOT / "waivers.yaml")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a repository without waivers, on a branch that adds one."""

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words],
            check=True,
            capture_output=True,
        )

    origin = tmp_path / "origin"
    origin.mkdir()
    monkeypatch.chdir(origin)
    git("init", "--quiet", "--initial-branch", "main")
    Path("gates.yaml").write_text("", encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "x")
    git("clone", "--quiet", str(origin), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    git("switch", "--quiet", "--create", "change")
    Path("waivers.yaml").write_text(GOOD, encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Waive")
    return tmp_path / "clone"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def test_a_branch_does_not_waive_its_own_gates(clone: Path, monkeypatch: pytest.MonkeyPatch):
    assert waivers_in_force(CONTRACT) == []
    # As in a pull request's workflow, where origin/HEAD may be unknown and the branch that it goes to is
    # named.
    run("git", "remote", "set-head", "origin", "--delete")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    assert waivers_in_force(CONTRACT) == []
    monkeypatch.delenv("GITHUB_BASE_REF")
    # nothing to compare with: the first push is to come
    assert [w.gate for w in waivers_in_force(CONTRACT)] == ["score"]


def test_a_waiver_counts_once_it_is_on_the_default_branch(clone: Path):
    run("git", "push", "--quiet", "origin", "change:released")
    assert waivers_in_force(CONTRACT) == []
    run("git", "-C", str(clone.parent / "origin"), "switch", "--quiet", "--detach")
    run("git", "push", "--quiet", "origin", "change:main")
    assert [w.owner for w in waivers_in_force(CONTRACT)] == ["ada"]


def test_a_mistake_is_said_before_it_is_merged(clone: Path):
    Path("waivers.yaml").write_text(GOOD.replace("gate: score", "gate: scroe"), encoding="utf-8")
    with pytest.raises(UserError, match=r"waivers\.yaml:2: .*no gate has this name"):
        waivers_in_force(CONTRACT)


def test_an_older_project_without_the_file_has_no_waivers(tmp_path: Path):
    assert load_waivers(CONTRACT, tmp_path / "waivers.yaml") == []


def test_a_verdict_with_a_waiver_keeps_its_form():
    from jsonschema import validate

    schema = json.loads((ROOT / "contracts" / "verdict.schema.json").read_text(encoding="utf-8"))
    validate(json.loads(json.dumps(judged([failed()], LAST).to_json())), schema)
