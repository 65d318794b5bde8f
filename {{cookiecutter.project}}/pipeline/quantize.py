"""Quantize the student, and measure how far it moves from its fp32 variant.

python -m pipeline.quantize int4 NAME       by recipes/NAME.json
"""

from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from slm.config.params import load_params
from slm.export.olive import run_recipe
from slm.files import weights_mb, write_json
from slm.inference.genai import GenAI
from slm.progress import print_closing_line, track
from slm.stage import stage
from slm.task.records import TASK, fixed_sample, read_records

CHECKPOINT = Path("models/finetuned")
REFERENCE = Path("models/onnx")


@stage
def main(name: Literal["int8", "int4"], recipe: str) -> None:
    params = load_params()
    output = Path("models") / name

    # Quantize with Olive
    run_recipe(Path("recipes") / f"{recipe}.json", CHECKPOINT, output)

    # Measure the divergence on validation data: same answers, and KL of the first answer token's
    # distribution, in nats
    records = fixed_sample(
        read_records(TASK / "validation.jsonl", True), params.convert.parity_prompts, params.seed
    )
    reference, quantized = GenAI(REFERENCE), GenAI(output)
    limit = params.evaluate.max_new_tokens
    prompts = [reference.encode(record.prompt) for record in records]
    expected = {
        i: reply.token_ids for i, reply in reference.ask_all(prompts, params.evaluate.batch_size, limit)
    }
    equal, divergences = 0, []
    for i, ids in track(enumerate(prompts), "divergence", total=len(prompts)):
        equal += quantized.ask(ids, limit).token_ids == expected[i]
        log_p, log_q = (log_softmax(np.array(m.first_logits(ids))) for m in (reference, quantized))
        divergences.append(float((np.exp(log_p) * (log_p - log_q)).sum()))

    # Write the facts
    facts = {
        "prompts": len(records),
        "equal_answers": equal,
        "first_token_kl_mean": float(np.mean(divergences)),
        "weights_mb": weights_mb(output),
        "reference_mb": weights_mb(REFERENCE),
    }
    write_json(Path("reports/quantize") / f"{name}.json", facts)
    print_closing_line("quantize", {"name": name, **facts})


if __name__ == "__main__":
    main()
