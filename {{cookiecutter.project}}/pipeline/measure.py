"""Time and memory of every rung that the shipped runtime can load, in one run, interleaved."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slm.chat import fixed_sample
from slm.errors import UserError, stage
from slm.files import folder_sha256, weights_mb, write_json
from slm.params import load_params
from slm.progress import print_closing_line, track
from slm.records import TASK, read_records

RUNGS = {"teacher": Path("models/teacher-onnx"), "onnx": Path("models/onnx"), "int8": Path("models/int8"), "int4": Path("models/int4")}
# What ships costs what it weighs; the teacher is counted as its tied fp32 checkpoint.
WEIGHED = RUNGS | {"teacher": Path("models/teacher")}
OUTPUT = Path("reports/cost.json")


def run_once(folder: Path, prompts: Path, threads: int, max_new_tokens: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "slm.bench", str(folder), str(prompts), "--threads", str(threads)]
    command += ["--max-new-tokens", str(max_new_tokens)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{folder}: cannot be measured: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def figures(runs: list[dict[str, Any]]) -> dict[str, float]:
    requests = [r for run in runs for r in run["requests"]]
    times = [r["request_ms"] for r in requests]
    decode_s = sum(r["request_ms"] - r["ttft_ms"] for r in requests) / 1000
    return {
        "ttft_ms_p50": float(np.median([r["ttft_ms"] for r in requests])),
        "request_ms_p50": float(np.median(times)),
        "request_ms_p95": float(np.quantile(times, 0.95)),
        "decode_tokens_per_s": sum(r["answer_tokens"] - 1 for r in requests) / decode_s if decode_s else 0.0,
        "prompt_tokens": float(np.mean([r["prompt_tokens"] for r in requests])),
        "answer_tokens": float(np.mean([r["answer_tokens"] for r in requests])),
        "rss_mb": float(np.median([run["rss_mb"] for run in runs])),
        "request_ms_p50_by_round": [float(np.median([r["request_ms"] for r in run["requests"]])) for run in runs],
    }


@stage
def main() -> None:
    params = load_params()
    settings = params.measure
    records = fixed_sample(read_records(TASK / "test.jsonl", True), settings.prompts, params.seed)
    rungs = {name: folder for name, folder in RUNGS.items() if (folder / "genai_config.json").exists()}

    # Every round asks every rung once, so that a slow minute of the machine slows them all. The thread count of the
    # ladder is measured in every round, the others in the first.
    plan = [(r, t, name) for r in range(settings.rounds) for t in settings.threads[: None if r == 0 else 1] for name in rungs]
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.json"
        write_json(prompts, [r.prompt for r in records])
        for _, threads, name in track(plan, "measure"):
            runs.setdefault((name, threads), []).append(run_once(rungs[name], prompts, threads, settings.max_new_tokens))

    facts = {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "onnxruntime_genai": version("onnxruntime-genai"),
            "onnxruntime": version("onnxruntime"),
        },
        "threads": settings.threads[0],
        "rungs": {
            name: {
                "folder_sha256": folder_sha256(folder),
                "weights_mb": weights_mb(WEIGHED[name]),
                "by_threads": {str(t): figures(runs[name, t]) for t in settings.threads},
            }
            for name, folder in rungs.items()
        },
    }
    write_json(OUTPUT, facts)
    shown = {name: round(r["by_threads"][str(settings.threads[0])]["request_ms_p50"], 1) for name, r in facts["rungs"].items()}
    print_closing_line("measure", {"request_ms_p50": shown})


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    main()
