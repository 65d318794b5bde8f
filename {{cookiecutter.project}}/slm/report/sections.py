"""What the facts say, as the report shows it: functions from facts to rows of text and numbers."""

import difflib
import math
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import regex

from slm.config.params import Params
from slm.experiments.seeds import student_fingerprint
from slm.files import Json
from slm.task.answers import class_of, valid
from slm.task.definition import Task
from slm.task.metrics import interval, score_one
from slm.task.text import WORD_CHARACTER
from slm.verdict.rows import Verdict, rows_of

LADDER_FIGURES = [  # title, figure of the ladder, form of a value, hint
    ("Score", "score", "{:.3f}", "higher is better; with 95% interval"),
    ("Time of a request", "request_ms_p50", "{:,.0f} ms", "median; lower is better"),
    ("Memory", "rss_mb", "{:,.0f} MB", "peak, beyond the runtime's own; lower is better"),
    ("Size", "weights_mb", "{:,.1f} MB", "of the weights; lower is better"),
]


LIBRARIES = ("torch", "transformers", "peft", "olive-ai", "onnxruntime", "onnxruntime-genai")


def text(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def tiles(ladder: Json, shipped: str) -> list[dict[str, str]]:
    """The four figures that decide, for the shipped rung and as a share of the teacher's."""
    figures = {r["name"]: r for r in ladder["rungs"]}
    tiles = []
    for title, key, form, _ in LADDER_FIGURES:
        mine, teachers = figures.get(shipped, {}).get(key), figures.get("teacher", {}).get(key)
        share = f"teacher: {text(teachers, form)}"
        if mine is not None and teachers:  # a teacher that gets nothing right has no shares
            share = f"{mine / teachers:.0%} of the teacher’s {form.format(teachers)}"
        tiles.append({"title": title, "value": text(mine, form), "share": share})
    return tiles


def panels(ladder: Json, shipped: str) -> list[Json]:
    """The ladder as bars: one panel a figure, one bar a rung, as shares (0 to 1) of the panel's scale."""
    panels = []
    for title, key, form, hint in LADDER_FIGURES:
        scale = 1.0 if key == "score" else max((r[key] or 0 for r in ladder["rungs"]), default=0) or 1.0
        bars = []
        for r in ladder["rungs"]:
            kind = "shipped" if r["name"] == shipped else "teacher" if r["name"] == "teacher" else "other"
            ends = (r["score_low"], r["score_high"]) if key == "score" else None
            bars.append(
                {
                    "name": r["name"],
                    "kind": kind,
                    "share": (r[key] or 0) / scale,
                    "text": text(r[key], form),
                    "ends": ends,
                }
            )
        panels.append({"title": title, "hint": hint, "bars": bars})
    return panels


def gates(verdict: Verdict) -> list[Json]:
    """Rows of the gates table; a waived gate says by whom and until when."""
    rows = []
    for row, (name, mark, *ends, why) in zip(verdict.gates, rows_of(verdict)[1:], strict=True):
        value, limit = (
            f"{end:.4g}" if isinstance(end, float) else text
            for end, text in zip((row.value, row.limit), ends, strict=True)
        )
        rows.append({"name": name, "mark": mark.lower(), "value": value, "limit": limit, "why": why})
    return rows


def curve(points: list[Json]) -> Json | None:
    """A training curve as an SVG path in a box of 100 by 100, on a logarithmic scale: the end of training is
    where the news is.
    """
    if not points:
        return None
    steps, losses = [p["step"] for p in points], [max(float(p["loss"]), 1e-6) for p in points]
    low, high = math.log(min(losses)), math.log(max(losses))
    wide, tall = max(steps) - min(steps) or 1, high - low or 1.0
    dots = [
        (100 * (s - min(steps)) / wide, 100 * (high - math.log(v)) / tall)
        for s, v in zip(steps, losses, strict=True)
    ]
    dots = dots if len(dots) > 1 else dots * 2  # a line of no length shows as a dot
    path = "M" + " L".join(f"{x:.2f} {y:.2f}" for x, y in dots)
    ticks = [
        {"y": (high - v) / tall, "text": f"{math.exp(v):.2g}"}
        for v in dict.fromkeys((high, (high + low) / 2, low))
    ]
    return {"path": path, "ticks": ticks, "first": min(steps), "last": max(steps)}


def confusion(task: Task, predictions: list[Json]) -> Json | None:
    """Expected class by answered class; a class that nobody expects counts as (other). None for a task
    without classes.

    The heat of a cell grows with the square root of its share, so that one mistake in thirty can be seen.
    """
    pairs = [(class_of(task, p["expected"]), class_of(task, p["answer"])) for p in predictions]
    names = sorted({e for e, _ in pairs if e is not None})
    if not names:
        return None
    counts = Counter((e, a if a in names or a == "(invalid)" else "(other)") for e, a in pairs)
    columns = names + [
        extra
        for extra in ("(other)", "(invalid)")
        if extra not in names and any(a == extra for _, a in counts)
    ]
    rows = []
    for name in names:
        total = sum(counts[name, c] for c in columns)
        cells = [
            {"n": counts[name, c], "hit": c == name, "heat": round(60 * math.sqrt(counts[name, c] / total))}
            for c in columns
        ]
        rows.append({"name": name, "n": total, "cells": cells})
    return {"columns": columns, "rows": rows}


def slice_rows(quality: Json) -> dict[str, list[Json]]:
    """Score by tag and by class with its n and interval, the worst first."""
    groups: dict[str, list[Json]] = {"tag": [], "class": []}
    for key, s in quality["slices"].items():
        kind, name = key.split(":", 1)
        low, high = interval([s["score"]] * s["n"])
        groups[kind].append({"name": name, "n": s["n"], "score": s["score"], "low": low, "high": high})
    return {kind: sorted(rows, key=lambda r: (r["score"], -r["n"])) for kind, rows in groups.items()}


def difference(expected: str, answer: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether the other one lacks it."""
    a, b = (regex.findall(rf"{WORD_CHARACTER}+|\X", t) for t in (expected, answer))
    steps = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    left = [("".join(a[i:j]), kind != "equal") for kind, i, j, _, _ in steps if i < j]
    return left, [("".join(b[i:j]), kind != "equal") for kind, _, _, i, j in steps if i < j]


def errors(task: Task, predictions: list[Json], teacher: dict[str, str]) -> list[Json]:
    """Wrong answers, the most informative first: invalid ones, then those that the teacher (its answers by
    id) had better.
    """
    rows = []
    for p in predictions:
        mine = score_one(task, p["expected"], p["answer"])
        if mine["score"] == 1:
            continue
        said = teacher.get(p["id"])
        better = said is not None and score_one(task, p["expected"], said)["score"] > mine["score"]
        rows.append(
            p | {"valid": mine["valid"], "score": mine["score"], "teacher": said, "teacher_better": better}
        )
    return sorted(rows, key=lambda r: (r["valid"], not r["teacher_better"], r["score"]))


def doubtful(task: Task, wrong: list[Json]) -> list[Json]:
    """Labels to look at. Neither the teacher nor the shipped model has seen the example, and both agree on
    another valid answer.

    When models agree against the label, the label is often wrong (Northcutt et al., arXiv 1911.00068).
    """
    agree = [
        e
        for e in wrong
        if e["valid"] and e["score"] < 1 and e["teacher"] is not None and valid(task, e["teacher"])
    ]
    return [e for e in agree if score_one(task, e["teacher"], e["answer"])["score"] == 1]


def suites(reports: list[Json]) -> list[Json]:
    """Great Expectations suites: how many checks (an expectation on a file) hold, and each expectation with
    its reason once.
    """
    rows = []
    for report in reports:
        results = report["results"]
        files = ", ".join(dict.fromkeys(Path(r["file"]).stem for r in results))
        whys = dict.fromkeys(f"{r['expectation']}({r['column'] or ''}): {r['why']}" for r in results)
        rows.append(
            {
                "name": report["suite"],
                "files": files,
                "held": sum(r["passed"] for r in results),
                "checks": len(results),
                "whys": list(whys),
            }
        )
    return rows


def data(facts: Json) -> Json:
    """The splits: sizes, similarity to the training data, and what is in them by class and tag (tables with
    their header).
    """
    splits, near = facts["splits"], facts["nearest_in_train"]
    sizes = [["split", "records", "words", "classes", "tags", "nearest in train: mean", "p95", "max"]]
    for name, s in splits.items():
        similar = [text(near.get(name, {}).get(k), "{:.2f}") for k in ("mean", "p95", "max")]
        kinds = [str(sum(map(bool, s[key]))) for key in ("classes", "tags")]
        sizes.append([name, f"{s['records']:,}", f"{s['words_mean']:.1f}", *kinds, *similar])
    contents = {}
    for kind, key in {"class": "classes", "tag": "tags"}.items():
        names, having = (
            sorted({n for s in splits.values() for n in s[key] if n}),
            [n for n, s in splits.items() if any(s[key])],
        )
        contents[kind] = [[kind, *having]] + [
            [n, *(str(splits[s][key].get(n, 0)) for s in having)] for n in names
        ]
    return {
        "sizes": sizes,
        "contents": contents,
        "suites": suites(facts["suites"]),
        "doubtful": facts.get("doubtful") or {"shown": []},
    }


def filtered(facts: Json) -> list[Json]:
    """What each filter dropped: count, share of all rows, samples; the one that dropped most comes first."""
    counts = sorted(facts["dropped_for"].items(), key=lambda item: (-item[1], item[0]))
    return [
        {"name": name, "n": n, "share": n / facts["asked"], "samples": facts["dropped_samples"][name]}
        for name, n in counts
    ]


def balance(kind: str, before: dict[str, int], after: dict[str, int]) -> list[list[str]]:
    """Classes of the answers, or tags, before and after the filters, the largest first: numbers, shares, and
    how much of each was kept.
    """
    rows = [[kind, "before", "share", "after", "share", "kept"]]
    for name in sorted(before, key=lambda n: (-before[n], n)) if sum(map(bool, before)) > 1 else []:
        had, has = before[name], after.get(name, 0)
        shares = (
            f"{part / max(1, sum(whole.values())):.1%}" for part, whole in ((had, before), (has, after))
        )
        rows.append(
            [name or "(none)", f"{had:,}", next(shares), f"{has:,}", next(shares), f"{has / had:.0%}"]
        )
    return rows


def synthesized(facts: Json) -> Json:
    """The synthetic data, before and after its filters; the prompts that the teacher wrote itself, where
    there are any.
    """
    before, after = facts["summary_before"], facts["summary"]
    shares = {
        "classes": balance("class", before["classes"], after["classes"]),
        "tags": balance("tag", before["tags"], after["tags"]),
    }
    mine = facts.get("invented")
    invented = mine and mine | {"filters": filtered(mine)}
    return facts | {
        "suites": suites(facts["suites"]),
        "filters": filtered(facts),
        "balance": shares,
        "invented": invented,
    }


def layers(facts: Json) -> Json:
    """The teacher's layers: which the student kept, and the loss without each (the last time it was
    measured), as a bar.
    """
    loss = {r["layer"]: max(r["loss"], 1e-6) for r in facts["importance"]}
    kept, count = set(facts["layers"]), max([*loss, *facts["layers"]]) + 1
    low, high = (math.log(f(loss.values())) for f in (min, max)) if loss else (0.0, 0.0)
    shares = {i: 0.1 + 0.9 * (math.log(v) - low) / (high - low or 1) for i, v in loss.items()}
    bars = [{"kept": i in kept, "loss": loss.get(i), "share": shares.get(i, 0.1)} for i in range(count)]
    return {
        "bars": bars,
        "kept": len(kept),
        "parameters_m": text(facts.get("parameters_m"), "{:.1f} M parameters"),
    }


def conversions(convert: dict[str, Json], quantize: dict[str, Json]) -> list[list[str]]:
    """Does each variant still answer the same? Counts equal greedy answers, and measures how far the first
    token's scores moved.
    """
    rows = [["variant", "compared with", "equal answers", "first token moved", "weights"]]
    for name, f in convert.items():
        equal = f.get("skipped") or f"{f['equal_answers']} of {f['prompts']}"
        moved = "–" if "skipped" in f else f"logits by {f['largest_logit_difference']:.2g} at most"
        rows.append([name, "its PyTorch checkpoint", equal, moved, "–"])
    for name, f in quantize.items():
        size = f"{f['weights_mb']:.1f} of {f['reference_mb']:.1f} MB"
        rows.append(
            [
                name,
                "onnx (fp32)",
                f"{f['equal_answers']} of {f['prompts']}",
                f"KL {f['first_token_kl_mean']:.2g} nats",
                size,
            ]
        )
    return rows


def origins(ladder: Json, revision: str | None, params: Params) -> list[list[str]]:
    """Where and from what: the machine that was timed, base model, teacher, libraries installed here."""
    wheel, hub, endpoint = params.models.wheel, params.models.hub, params.synthesize.endpoint
    base = (
        f"{wheel.name} {wheel.version}"
        if params.models.source == "wheel"
        else f"{hub.repo} at {hub.revision}"
    )
    own = params.models.student
    teacher = "local" if params.synthesize.teacher == "local" else f"{endpoint.model} at {endpoint.base_url}"
    rows = [
        ["revision", revision or "–"],
        ["profile, seed", f"{params.profile}, {params.seed}"],
    ]
    rows += [
        ["base model", base],
        *([["student's own", f"{own.repo} at {own.revision}"]] if own else []),
        ["teacher", teacher],
        ["threads of the ladder", str(ladder["threads"])],
    ]
    rows += [[name.replace("_", "-"), str(value)] for name, value in ladder["machine"].items()]
    return rows + [
        [name, version(name)] for name in LIBRARIES if name.replace("-", "_") not in ladder["machine"]
    ]


def of_this_student(seeds: Json | None, ladder: Json, shipped: str) -> Json | None:
    """What `slm seeds` found, unless the student or the test set has changed since."""
    fits = (
        seeds
        and seeds["test_sha256"] == ladder["test_sha256"]
        and Path("dvc.lock").exists()
        and seeds["made_from"] == student_fingerprint(shipped)
    )
    return seeds if fits else None
