"""A checkpoint as fp32 ONNX for ONNX Runtime GenAI, and the proof that it says the same.

python -m pipeline.convert onnx models/finetuned
"""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from slm.config.params import load_params
from slm.errors import UserError
from slm.export.olive import run_recipe
from slm.files import folder_sha256, replacing, write_json
from slm.inference.genai import GenAI
from slm.modeling.checkpoints import load_model, load_tokenizer
from slm.modeling.encoding import encode_prompt
from slm.modeling.generation import generate
from slm.progress import print_closing_line, track
from slm.stage import stage
from slm.task.records import TASK, fixed_sample, read_records

RECIPE = Path("recipes/fp32.json")
COMPARED = 10  # prompts whose logits are compared number by number


@stage
def main(name: Literal["onnx", "teacher-onnx"], checkpoint: str) -> None:
    params = load_params()
    source, output, report = Path(checkpoint), Path("models") / name, Path("reports/convert") / f"{name}.json"
    if (source / "endpoint.json").exists():  # nothing to convert: the teacher is elsewhere
        with replacing(output) as temporary:
            shutil.copytree(source, temporary)
        write_json(report, {"skipped": "the teacher is an endpoint"})
        return

    # Convert with Olive
    run_recipe(RECIPE, source, output)

    # Check that the tokenizer reads prompts as the checkpoint's does
    prompts = fixed_sample(
        read_records(TASK / "validation.jsonl", True), params.convert.parity_prompts, params.seed
    )
    tokenizer, model, runtime = load_tokenizer(source), load_model(source, params), GenAI(output)
    ids = [encode_prompt(tokenizer, r.prompt) for r in prompts]
    for record, mine in zip(prompts, ids, strict=True):
        if mine != runtime.encode(record.prompt):
            raise UserError(
                f"{output}: its tokenizer or chat template reads {record.text!r} as other tokens than "
                f"{source}; rebuild both"
            )

    # Check parity: the same greedy tokens, and first logits that differ by rounding only
    limit = params.evaluate.max_new_tokens
    expected = dict(generate(model, tokenizer, ids, params.evaluate.batch_size, limit))
    answers = track(runtime.ask_all(ids, params.evaluate.batch_size, limit), "parity", total=len(ids))
    equal = sum(reply.token_ids == expected[i].token_ids for i, reply in answers)
    differences = []
    for prompt in ids[:COMPARED]:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt], device=model.device)).logits[0, -1].float().cpu().numpy()
        differences.append(float(np.abs(logits - np.array(runtime.first_logits(prompt))).max()))

    # Write the facts
    facts = {
        "checkpoint_sha256": folder_sha256(source),
        "prompts": len(ids),
        "equal_answers": equal,
        "compared_logits": len(differences),
        "largest_logit_difference": max(differences),
    }
    write_json(report, facts)
    print_closing_line("convert", {"name": name, **facts})


if __name__ == "__main__":
    main()
