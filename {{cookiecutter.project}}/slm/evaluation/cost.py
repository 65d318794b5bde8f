"""Time and memory of several models side by side: fresh processes, interleaved in rounds, on one machine in
one run.

A machine that is busy with something else can slow one model in one round, and the ratio of two models then
says more of the machine than of them. So the rounds must agree: in each round every model's median time is
divided by the first model's; over the rounds, the largest of a model's ratios may be at most 1.5 times its
smallest. If they do not agree, all rounds are run again, twice at most, and only the last set is kept, so
that nobody picks the best of them. `agreed` and `ratios` state whether that set agrees. The gate "rounds
agree" judges it, because a busy machine must not break the pipeline. One round always agrees.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slm.config.params import Measure
from slm.inference.asking import Asker, Messages
from slm.inference.sandbox import Kind
from slm.progress import track

SPREAD = 1.5  # largest ratio of a model to the first one, over the rounds, as a multiple of the smallest
ATTEMPTS = 3
CostFacts = dict[str, Any]


def side_by_side(
    folders: dict[str, Path], prompts: list[Messages], settings: Measure, sandbox: Kind | None = None
) -> CostFacts:
    """Each model's `figures` by number of threads ({"int4": {"1": {…}, "2": {…}}}), whether the rounds
    `agreed`, their `ratios`, `attempts`.

    Args:
        sandbox: in which all of them run, if one of them is a stranger's.
    """
    first = str(settings.threads[0])
    for attempt in range(ATTEMPTS):
        measured = one_set(folders, prompts, settings, sandbox)
        ratios = ratios_by_round(
            {name: by_threads[first]["request_ms_p50_by_round"] for name, by_threads in measured.items()}
        )
        agreed, attempts = agree(ratios), attempt + 1
        if agreed:
            break
    return {"figures": measured, "agreed": agreed, "ratios": ratios, "attempts": attempts}


def ratios_by_round(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each model's median time in each round, as a share of the first model's in the same round."""
    base = next(iter(times.values()), [])
    return {name: [t / b for t, b in zip(rounds, base, strict=True)] for name, rounds in times.items()}


def ratio_spread(ratios: list[float]) -> float:
    return max(ratios) / min(ratios) if ratios and min(ratios) > 0 else float("inf")


def agree(ratios: dict[str, list[float]]) -> bool:
    return all(ratio_spread(r) <= SPREAD for r in ratios.values())


def one_set(
    folders: dict[str, Path], prompts: list[Messages], settings: Measure, sandbox: Kind | None
) -> dict[str, dict[str, CostFacts]]:
    """All rounds once. Every round asks every model once, so that a slow minute of the machine slows them
    all. The first thread count is measured in every round, the others in the first.
    """
    plan = [
        (r, t, name)
        for r in range(settings.rounds)
        for t in settings.threads[: None if r == 0 else 1]
        for name in folders
    ]
    runs: dict[tuple[str, int], list[CostFacts]] = {}
    for _, threads, name in track(plan, "measure"):
        runs.setdefault((name, threads), []).append(
            run_once(folders[name], prompts, threads, settings.max_new_tokens, sandbox)
        )
    return {name: {str(t): figures(runs[name, t]) for t in settings.threads} for name in folders}


def run_once(
    folder: Path, prompts: list[Messages], threads: int, max_new_tokens: int, sandbox: Kind | None
) -> CostFacts:
    """Times of each request and the peak of memory, in a fresh process."""
    with Asker(folder, threads, max_new_tokens, sandbox) as asker:
        for messages in prompts[:2]:  # warm-up
            asker.ask(messages)
        answers = [asker.ask(messages) for messages in prompts]
    requests = [
        {
            "prompt_tokens": a.prompt_tokens,
            "answer_tokens": len(a.reply.token_ids),
            "ttft_ms": a.reply.ttft_ms,
            "request_ms": a.reply.request_ms,
        }
        for a in answers
    ]
    return {"threads": threads, "rss_mb": answers[-1].rss_mb, "requests": requests}


def figures(runs: list[CostFacts]) -> CostFacts:
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
        "request_ms": [[r["request_ms"] for r in run["requests"]] for run in runs],
        "request_ms_p50_by_round": [
            float(np.median([r["request_ms"] for r in run["requests"]])) for run in runs
        ],
    }


def machine() -> CostFacts:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "onnxruntime_genai": version("onnxruntime-genai"),
        "onnxruntime": version("onnxruntime"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
