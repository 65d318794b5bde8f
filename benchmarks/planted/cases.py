"""All cases: what is planted, what is then run, and, stated before it is, which gates must fire and which may."""

from benchmarks.planted import contract, conversion, data, facts, harmless, package, training
from benchmarks.planted.case import Case

CASES: list[Case] = [
    *facts.CASES,
    *contract.CASES,
    *package.CASES,
    *data.CASES,
    *conversion.CASES,
    *training.CASES,
    *harmless.CASES,
]
assert len({c.name for c in CASES}) == len(CASES), "two cases have the same name"
