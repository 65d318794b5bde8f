"""Does the data help? Students of the same training run: people's labels, the teacher's answers beside them, prompts that a model wrote, filters.

    PROJECT/.venv/bin/python benchmarks/data.py PROJECT              (make bench-data; after make demo; half an hour, goes on where it was)

The endpoint is a local server over two real small models (benchmarks/teacher/model_server.py): the demo's taught teacher answers, the base model, of
135M parameters, writes new prompts as `synthesize.generate` asks it to. The project's own `synthesize` stage asks both and filters. Each student is
made as in benchmarks/ablations.py, for as many steps and by cross-entropy. A stronger writer may help more: this is what a small one does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ablations import OURS, PROJECT, student

WORK, OUTPUT = Path("build/bench/data").resolve(), Path("build/bench/data.json").resolve()
WRITTEN = {"self_instruct": 120, "evolve": 30, "persona": 40, "out_of_scope": 30, "weak_slices": 0}
PROMPTS = 600
PORT = 18765  # the same each time: what is stored is named by the address
OFF = {"refusal": False, "secrets": False, "personal": False, "decontaminate": None, "near_duplicates": None}


def synthesize(filters: dict[str, Any]) -> list[dict[str, Any]]:
    """The stage's records, out of a copy of the project that shares task, models and, from one call to the next, the response store."""
    from slm.config.edit import rewrite

    WORK.mkdir(parents=True, exist_ok=True)
    for name in ("slm", "pipeline", "task", "models"):
        (WORK / name).unlink(missing_ok=True)
        os.symlink(PROJECT / name, WORK / name)
    (WORK / "params.yaml").write_text((PROJECT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    local = {"base_url": f"http://127.0.0.1:{PORT}/v1", "model": "small", "api_key_env": "NO_KEY", "response_format": "none"}
    local |= {"price": {"input": 0, "output": 0, "batch": 1}, "timeout_s": 1800}
    settings = {"teacher": "endpoint", "prompts": PROMPTS, "endpoint": local, "generate": WRITTEN, "filters": filters}
    rewrite({"synthesize": settings}, WORK / "params.yaml")
    subprocess.run([sys.executable, "-m", "pipeline.synthesize"], cwd=WORK, env=os.environ | {"NO_KEY": "none"}, check=True)
    return [json.loads(line) for line in (WORK / "data" / "synthetic.jsonl").read_text(encoding="utf-8").splitlines()]


def taught(records: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """A student of these records beside people's labels; none: of the labels alone."""
    way = replace(OURS, kl_weight=0.0, data=("labelled", "synthetic") if records else ("labelled",))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        for part in ("task", "models", "params.yaml"):
            os.symlink(PROJECT / part, Path(name) / part)
        (Path(name) / "data").mkdir()
        (Path(name) / "data" / "synthetic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        none = {"ids": np.zeros((0, 1), np.int32), "logprobs": np.zeros((0, 1), np.float16), "lengths": np.zeros(len(records), np.int32)}
        np.savez(Path(name) / "data" / "logprobs.npz", **none)
        os.chdir(name)
        try:
            return student(way, steps)
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="a default project whose model is made")
    parser.add_argument("--steps", type=int, default=240, help="of the default batch size")
    steps = parser.parse_args().steps
    from slm.files import folder_sha256, sha256_json

    # Asked once for the same teacher and the same wishes; the students are made anew.
    key = sha256_json([folder_sha256(PROJECT / "models" / "teacher"), WRITTEN, PROMPTS])
    asked = WORK / f"asked-{key[:16]}.json"
    if not asked.exists():
        server = Path(__file__).parent / "teacher" / "model_server.py"
        process = subprocess.Popen([sys.executable, str(server), str(PROJECT), "--port", str(PORT)], stdout=subprocess.PIPE, text=True)
        try:
            if not process.stdout.readline():
                sys.exit(f"the server did not start; is port {PORT} taken?")
            found = {"all": synthesize(OFF), "filtered": synthesize({})}
        finally:
            process.kill()
        asked.write_text(json.dumps(found), encoding="utf-8")
    found = json.loads(asked.read_text(encoding="utf-8"))
    own = [r | {"dropped": None} for r in found["all"] if "invented" not in r["provenance"]]
    everything = [r | {"dropped": None} for r in found["all"]]
    kept = [r for r in found["filtered"] if r["dropped"] is None]
    figures: dict[str, float] = {"steps": steps}
    print(f"{'':50s}{'records':>9s}{'loss':>8s}{'exact':>8s}")
    for name, records in {
        "people's labels": [],
        "and the teacher's answers to people's prompts": own,
        "and to prompts that a model wrote": everything,
        "and filtered": kept,
    }.items():
        row = taught(records, steps)
        figures |= {f"{name}, records": len(records), f"{name}, loss": row["loss"], f"{name}, exact": row["exact"]}
        print(f"{name:50s}{len(records):9d}{row['loss']:8.3f}{row['exact']:8.3f}", flush=True)
    why = Counter(r["dropped"].partition(":")[0] for r in found["filtered"] if r["dropped"])
    figures |= {f"dropped as {name}": count for name, count in sorted(why.items())}
    OUTPUT.write_text(json.dumps({"figures": figures}, indent=2) + "\n", encoding="utf-8")
    for name, count in sorted(why.items()):
        print(f"dropped as {name}: {count}")


if __name__ == "__main__":
    main()
