"""The structure of a verdict (contracts/verdict.schema.json): rows, result, and how they are shown."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from slm.evaluation.ladder import ladder_table
from slm.tables import markdown

Severity = Literal["block", "warn"]


@dataclass(frozen=True)
class Row:
    """One gate, judged.

    passed: None where the gate does not apply, or there is nothing to compare with.
    value, limit: a number, a hash or a name; None where there is none.
    waived: owner, reason and last day (`until`) of a waiver in force.
    """

    name: str
    severity: Severity
    passed: bool | None
    value: float | str | None
    limit: float | str | None
    why: str
    waived: dict[str, str] | None = None

    @property
    def refuses(self) -> bool:
        return self.severity == "block" and self.passed is False and not self.waived

    @property
    def mark(self) -> str:
        if self.passed is False:
            return "waived" if self.waived else "warn" if self.severity == "warn" else "FAIL"
        return "pass" if self.passed else "–"

    @property
    def waiver(self) -> str:
        """The waiver in force as a sentence; empty without one."""
        if self.waived is None:
            return ""
        owner, until, reason = (" ".join(self.waived[k].split()) for k in ("owner", "until", "reason"))
        return f"waived by {owner} until {until}: {reason}"


@dataclass(frozen=True)
class Verdict:
    """All rows of one judgement.

    candidate: revision and hashes of the package that was judged.
    baseline: the entry of released.json that it was compared with; None where nothing is released.
    weakened: each way in which the contract is looser than the baseline's, as a sentence.
    contract_sha256: of the contract that it was judged by.
    sandbox: in which the model was asked; None where it is no stranger's.
    """

    gates: list[Row]
    candidate: dict[str, Any]
    baseline: dict[str, Any] | None = None
    weakened: list[str] = field(default_factory=list)
    contract_sha256: str | None = None
    sandbox: str | None = None

    @property
    def passed(self) -> bool:
        return not any(row.refuses for row in self.gates)

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        fields = {name: value for name, value in stored.items() if name != "passed"}
        return cls(**fields | {"gates": [Row(**row) for row in stored["gates"]]})


def rows_of(verdict: Verdict) -> list[list[str]]:
    """The table of a verdict, the header first."""
    rows = [["gate", "verdict", "value", "limit", "why"]]
    for row in verdict.gates:
        why = f"{row.why} ({row.waiver})" if row.waived else row.why
        ends = ("–" if end is None else str(end) for end in (row.value, row.limit))
        rows.append([row.name, row.mark, *ends, why])
    return rows


def waivers_of(verdict: Verdict) -> list[str]:
    """Each waiver in force, as a sentence."""
    return [f"{row.name}: {row.waiver}" for row in verdict.gates if row.waived]


def headline(verdict: Verdict) -> str:
    if not verdict.passed:
        return f"The model is refused: {', '.join(row.name for row in verdict.gates if row.refuses)}."
    waived = [row.name for row in verdict.gates if row.waived]
    if waived:
        return f"The model passes its gates, except waived gates: {', '.join(waived)}."
    return "The model passes its gates."


def as_markdown(verdict: Verdict, ladder: dict[str, Any]) -> str:
    gates = [[" ".join(cell.replace("|", "\\|").split()) for cell in cells] for cells in rows_of(verdict)]
    parts = [f"# {headline(verdict)}\n", "## The ladder\n", markdown(ladder_table(ladder))]
    parts += ["## The gates\n", markdown(gates)]
    lists = {"Waived": waivers_of(verdict), "The contract was loosened": verdict.weakened}
    for title, lines in lists.items():
        if lines:
            parts += [f"## {title}\n", "".join(f"- {line}\n" for line in lines)]
    return "\n".join(parts)
