"""Time and memory of every rung that the shipped runtime can load, in one run, interleaved."""

from pathlib import Path

from slm.config.params import load_params
from slm.evaluation.cost import machine, side_by_side
from slm.files import folder_sha256, weights_mb, write_json
from slm.progress import print_closing_line
from slm.stage import stage
from slm.task.records import TASK, fixed_sample, read_records

RUNGS = {
    "teacher": Path("models/teacher-onnx"),
    "onnx": Path("models/onnx"),
    "int8": Path("models/int8"),
    "int4": Path("models/int4"),
}
# What ships costs what it weighs; the teacher is counted as its tied fp32 checkpoint.
WEIGHED = RUNGS | {"teacher": Path("models/teacher")}
OUTPUT = Path("reports/cost.json")


@stage
def main() -> None:
    params = load_params()

    # Ask every ONNX model the same test prompts, side by side, in rounds
    records = fixed_sample(read_records(TASK / "test.jsonl", True), params.measure.prompts, params.seed)
    rungs = {name: folder for name, folder in RUNGS.items() if (folder / "genai_config.json").exists()}
    measured = side_by_side(rungs, [r.prompt for r in records], params.measure)

    # Write time, memory and size of each
    figures, threads = measured["figures"], params.measure.threads[0]
    facts = {
        "machine": machine(),
        "threads": threads,
        "agreed": measured["agreed"],
        "ratios": measured["ratios"],
        "attempts": measured["attempts"],
        "rungs": {
            name: {
                "folder_sha256": folder_sha256(folder),
                "weights_mb": weights_mb(WEIGHED[name]),
                "by_threads": figures[name],
            }
            for name, folder in rungs.items()
        },
    }
    write_json(OUTPUT, facts)
    times = {name: round(row[str(threads)]["request_ms_p50"], 1) for name, row in figures.items()}
    print_closing_line(
        "measure", {"request_ms_p50": times, "agreed": measured["agreed"], "attempts": measured["attempts"]}
    )


if __name__ == "__main__":
    main()
