"""How many answers may differ on a device: measured on devices, in devices.json, which a person merges."""

import math
from pathlib import Path

from statsmodels.stats.proportion import proportion_confint

from slm.ci.device import DEVICE_FACTS, TOLERANCE
from slm.errors import UserError
from slm.files import read_json, write_json


def tolerance(asked: int, flipped: int) -> float:
    """Share of the answers that may differ on a device like this one: the upper 95% bound (Clopper-Pearson),
    up to a whole percent.
    """
    return math.ceil(100 * float(proportion_confint(flipped, asked, alpha=0.10, method="beta")[1])) / 100


def write_tolerance(facts_folder: Path) -> None:
    """Make devices.json of what every device said (FACTS/**/device.json), if there is none yet."""
    found = [read_json(path) for path in sorted(facts_folder.rglob(DEVICE_FACTS.name))]
    if not found:
        raise UserError("no device reported its facts: see the jobs of this run")
    if TOLERANCE.exists():
        print(f"{TOLERANCE} already exists; delete it, and the next run makes it anew")
        return
    devices = [{name: facts[name] for name in ("system", "asked", "flipped")} for facts in found]
    write_json(
        TOLERANCE,
        {"tolerance": max(tolerance(d["asked"], d["flipped"]) for d in devices), "devices": devices},
    )
    print(
        f"The share of answers that may differ on a device, from {len(devices)} measured ones (upper 95% "
        "bound of the worst).\n"
    )
    print("| device | asked | differ | may differ |\n| --- | ---: | ---: | ---: |")
    for d in devices:
        print(
            f"| {d['system']} | {d['asked']} | {d['flipped']} | {tolerance(d['asked'], d['flipped']):.2f} |"
        )
    print(
        "\nRead it before you merge. If many answers differ on a device, it has another model, not only "
        "other arithmetic."
    )
