"""The same prompts by distilabel, in an environment of its own: what benchmarks/teacher/load.py compares with.

python benchmarks/teacher/distilabel_run.py URL PROMPTS BATCH REPLICAS     (started by benchmarks/teacher/load.py)

distilabel sends a batch at once and waits for all of it, so that batch x replicas is the number of requests at once.
"""

import json
import sys

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepResources
from distilabel.steps.tasks import TextGeneration


def main() -> None:
    url, path, batch, replicas = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with open(path, encoding="utf-8") as stream:
        rows = [{"instruction": json.loads(line)["messages"][-1]["content"]} for line in stream]
    with Pipeline(name="bench") as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=batch)
        llm = OpenAILLM(model="big", base_url=f"{url}/v1", api_key="sk-planted-0123456789", generation_kwargs={"max_new_tokens": 72})
        load >> TextGeneration(llm=llm, input_batch_size=batch, resources=StepResources(replicas=replicas))
    found = pipeline.run(use_cache=False)["default"]["train"]
    assert len(found) == len(rows) and all(found["generation"]), "distilabel left prompts without an answer"


if __name__ == "__main__":
    main()
