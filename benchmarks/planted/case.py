"""What a case is, and the names that cases speak of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Command = tuple[str, ...]

# Doors through which a project is judged; each adds to what fired.
GATE: Command = ("python", "-m", "slm", "gate")
LOCK: Command = ("python", "-m", "slm", "locked")
TESTS: Command = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_scoring.py")
# What the judge says of a change itself: for a plant that commits it.
CHANGES: Command = ("python", "-m", "slm", "changes", "HEAD~1", "HEAD")
JUDGE: Command = ("python", "-m", "slm", "judge")

# What is run between planting and judging.
REPRO: Command = ("dvc", "repro", "package")
CHECK: Command = ("python", "-m", "pipeline.check")
ASK: Command = ("python", "-m", "pipeline.evaluate", "int4", "models/int4")
TIME: Command = ("python", "-m", "pipeline.measure")
PACK: Command = ("python", "-m", "pipeline.package")
# A fault in the shipped folder itself, which DVC would make anew: what comes after it is run by hand.
SHIP: tuple[Command, ...] = (ASK, TIME, PACK)

# A model that got worse shows in several of these at once, and which of them see it depends on how much it lost.
QUALITY = (
    "score",
    "valid answers",
    "kept of teacher",
    "kept by quantization",
    "not worse than released",
    "not worse than best",
    "no slice worse",
)
BYTES = ("integrity: bytes scored", "integrity: bytes timed", "integrity: weights")
# Whatever is forged or changed behind the stages' back also contradicts its sources, or its documents.
CLAIMS = ("integrity: figures", "integrity: documents")
# Longer answers take longer, more bytes take more memory: side effects that a fault of quality may have.
COST = ("time", "memory", "time of released", "memory of released", "rounds agree")


@dataclass(frozen=True)
class Case:
    """One change, planted in a copy of the healthy project.

    must: what has to fire; "a | b" is either. A name is that of a gate that blocks, `weakened` (the verdict reports a looser contract),
        `refused: STAGE` (a command ends with an error that names the remedy), or `warns: NAME`.
    may: what may fire beside it. What is in neither must not.
    """

    name: str
    kind: str
    plant: Callable[[Path], None]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    run: tuple[Command, ...] = ()
    doors: tuple[Command, ...] = (GATE,)

    @property
    def harmless(self) -> bool:
        return self.kind == "harmless"

    @property
    def trains(self) -> bool:
        return REPRO in self.run
