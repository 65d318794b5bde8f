"""Planted faults: the gate fires where it must and nowhere else. What needs training or asking is nightly, on a healthy stub of its own."""

from pathlib import Path

import pytest

from benchmarks.planted.case import Case
from benchmarks.planted.cases import CASES
from benchmarks.planted.run import outcome, try_case
from benchmarks.planted.world import GATES, HOME, commit, copy, prepare, release

pytestmark = pytest.mark.slow
# One of each sort of what needs no training; a gate takes seconds, and `make test` has few.
QUICKLY = {
    "metric is infinite",
    "metric is a text",
    "predictions cut short",
    "cost figures of other bytes",
    "gates emptied",
    "severity turned to warn",
    "released model's predictions swapped",
    "chat template of the package changed",
    "checksum of a package file changed",
    "stricter contract",
}
ALONE = {"facts", "contract", "package"}


@pytest.fixture(scope="session")
def released(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick chain's project, judged by the stub's contract and released."""
    folder = copy(made, tmp_path_factory.mktemp("planted") / "healthy")
    (folder / "gates.yaml").write_text(GATES, encoding="utf-8", newline="\n")
    commit(folder, "The stub's contract")
    release(folder)
    return folder


def check(case: Case, healthy: Path, tmp_path: Path) -> None:
    row = try_case(case, healthy, tmp_path / "case", tmp_path / "kept")
    assert outcome(case, row["fired"]) == "ok", f"must {case.must}, may {case.may}, fired {row['fired']}: {row['why']}"


@pytest.mark.parametrize("case", [c for c in CASES if c.name in QUICKLY], ids=lambda c: c.name)
def test_gate_fires_where_it_must(case: Case, released: Path, tmp_path: Path):
    check(case, released, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("case", [c for c in CASES if c.kind in ALONE and c.name not in QUICKLY and not c.run], ids=lambda c: c.name)
def test_gate_fires_where_it_must_nightly(case: Case, released: Path, tmp_path: Path):
    check(case, released, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("case", [c for c in CASES if c.run or c.kind not in ALONE], ids=lambda c: c.name)
def test_gate_fires_after_training_or_asking(case: Case, chain: Path, tmp_path: Path):
    """On a stub that is worth comparing: made once, minutes; then each case minutes more."""
    if case.name not in QUICKLY:
        check(case, prepare(chain, HOME), tmp_path)


def test_a_gate_that_sleeps_is_noticed():
    """The bench's own judgement: nothing fired, the wrong one fired, and a harmless change that is refused."""
    case = next(c for c in CASES if c.name == "metric is infinite")
    calm = next(c for c in CASES if c.harmless)
    assert outcome(case, ["time"]) == "ok"
    assert outcome(case, []) == "missed"
    assert outcome(case, ["warns: time aim"]) == "missed"
    assert outcome(case, ["score"]) == "wrong gate"
    assert outcome(case, ["time", "score"]) == "wrong gate"
    assert outcome(case, ["crashed: gate (1)"]) == "wrong gate"
    assert outcome(calm, ["time"]) == "fired"
    assert outcome(calm, ["warns: time aim"]) == "ok"
