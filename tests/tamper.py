"""Single-byte changes over every file of a sealed package: who catches each?"""

import random
import shutil
import subprocess
from pathlib import Path

from tests.conftest import environment

CODE = """
import sys
from pathlib import Path
from slm.errors import UserError
from slm.files import folder_sha256
from slm.verdict.released import read_seal
seal = read_seal(Path(sys.argv[1]))
for line in sys.stdin:
    kind, name, offset, bit = line.split()
    path = Path(name)
    data = path.read_bytes()
    changed = bytearray(data)
    changed[int(offset)] ^= 1 << int(bit)
    path.write_bytes(changed)
    try:
        if kind == "sealed":
            read_seal(Path(sys.argv[1]))
            print("passed", name, offset)
        else:
            print("caught" if folder_sha256(Path(sys.argv[2])) != seal["folder_sha256"] else "passed", name, offset)
    except (UserError, ValueError, KeyError, TypeError):
        print("caught", name, offset)
    path.write_bytes(data)
"""


def tampered(project: Path, sealed: Path, scratch: Path, samples: int) -> tuple[int, int]:
    """Changes tried and changes caught: half in the sealed files (by their seal), half in the model's (by the gate's hash)."""
    copy = Path(shutil.copytree(sealed, scratch / "sealed"))
    (source,) = (project / "dist").glob("*/model")
    model = Path(shutil.copytree(source, scratch / "model"))
    rng = random.Random(0)
    plan = []
    for kind, folder in (("sealed", copy), ("model", model)):
        files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "SEAL.json")
        chosen = files + rng.choices(files, weights=[p.stat().st_size for p in files], k=max(0, samples // 2 - len(files)))
        plan += [f"{kind} {p} {rng.randrange(p.stat().st_size)} {rng.randrange(8)}" for p in chosen]
    command = [str(project / ".venv" / "bin" / "python"), "-c", CODE, str(copy), str(model)]
    done = subprocess.run(command, cwd=project, env=environment(), input="\n".join(plan), capture_output=True, text=True, check=True)
    answers = done.stdout.splitlines()
    assert len(answers) == len(plan)
    return len(plan), sum(a.startswith("caught") for a in answers)
