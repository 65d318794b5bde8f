"""The gates that every verdict has beside those of gates.yaml: what each is called, how severe it is, whether
it may be waived, and which stage makes its figure. And how any gate's figure is made again.
"""

from dataclasses import dataclass

from slm.evaluation.ladder import BESIDE
from slm.verdict.rows import Row, Severity

# Figures of the ladder that the stage `evaluate` makes. The stage `measure` makes time, memory and size.
QUALITY_FIGURES = ("score", "score_low", "score_high", "valid_rate", "field_f1", *BESIDE)


@dataclass(frozen=True)
class BuiltIn:
    """A gate that is not in gates.yaml.

    stage: the stage of dvc.yaml that makes its figure again, with `{shipped}` for the variant that
        ships; empty where none does.
    """

    name: str
    severity: Severity
    stage: str = ""
    waivable: bool = True

    def row(self, passed: bool | None, value: float | str | None, limit: float | str | None, why: str) -> Row:
        return Row(self.name, self.severity, passed, value, limit, why)


ASKED = "evaluate@{shipped}"
# Comparisons with a released model: by which one it is, what a candidate must be.
NOT_WORSE = {name: BuiltIn(f"not worse than {name}", "block", ASKED) for name in ("released", "best")}
WITHIN_MARGIN = {name: BuiltIn(f"within margin of {name}", "warn", ASKED) for name in ("released", "best")}
NO_SLICE_WORSE = BuiltIn("no slice worse", "block", ASKED)
COST = {name: BuiltIn(f"{name} of released", "block") for name in ("time", "memory", "weights")}
# Those whose loss may come from a parameter that was changed since that release.
AGAINST_RELEASED = (NOT_WORSE["released"], NO_SLICE_WORSE, WITHIN_MARGIN["released"], *COST.values())

ROUNDS_AGREE = BuiltIn("rounds agree", "block", "measure")
LICENCE = {
    what: BuiltIn(f"licence of the {what}", "block")
    for what in ("base model", "student's base model", "data")
}
DATA_EXPECTATIONS = BuiltIn("data expectations", "block", "check")

# What ties a verdict to the bytes that ship. No waiver lets these through.
INTEGRITY_PREFIX = "integrity:"
INTEGRITY = {
    what: BuiltIn(f"{INTEGRITY_PREFIX} {what}", "block", waivable=False)
    for what in (
        *("bytes scored", "bytes timed", "weights", "test set", "whole test set"),
        *("score", "figures", "documents"),
    )
}
# Of a pull request's package, where it is judged alone.
PACKAGE = BuiltIn("package", "block", waivable=False)
MODEL = BuiltIn("model", "block", waivable=False)
BYTES_OF_COMMIT = BuiltIn("bytes of the commit", "warn", waivable=False)
# Of a package that main asks again before it seals it.
# The seal holds the times of the recheck. Those that were offered are a hint: a busy machine may differ.
RECHECK: dict[str, BuiltIn] = {
    "answers": BuiltIn("answers as offered", "block", waivable=False),
    "time": BuiltIn("time as offered", "warn", waivable=False),
}
EXAM = BuiltIn("hidden exam", "block", waivable=False)

BUILT_IN = {
    gate.name: gate
    for gate in (
        *AGAINST_RELEASED,
        *(NOT_WORSE["best"], WITHIN_MARGIN["best"], ROUNDS_AGREE),
        *(*LICENCE.values(), DATA_EXPECTATIONS, *INTEGRITY.values(), PACKAGE, MODEL, BYTES_OF_COMMIT),
        *(*RECHECK.values(), EXAM),
    )
}


def stages_of(name: str, metrics: list[str], shipped: str) -> list[str]:
    """The stages that make the figures of a gate again.

    Args:
        name: of the gate.
        metrics: of a gate of the contract, such as `int4.score`; empty for a gate that every verdict has.
        shipped: the variant that ships.
    """
    if name in BUILT_IN:
        return [stage.format(shipped=shipped)] if (stage := BUILT_IN[name].stage) else []
    stages = []
    for metric in metrics:
        rung, figure = metric.split(".")
        if rung == "package":
            stages.append("package")
        elif rung == "data":
            stages.append("validate" if figure in ("synthetic_share", "provenance") else "check")
        elif figure in (*QUALITY_FIGURES, "n"):
            stages.append(f"evaluate@{shipped if rung == 'shipped' else rung}")
        else:
            stages.append("measure")
    return list(dict.fromkeys(stages))


def command_again(name: str, metrics: list[str], shipped: str) -> str:
    """The command that makes a gate's figure again, and judges it."""
    stages = stages_of(name, metrics, shipped)
    first = f"dvc repro --force --single-item {' '.join(stages)} && " if stages else ""
    return f'{first}slm repro && slm gate --explain "{name}"'
