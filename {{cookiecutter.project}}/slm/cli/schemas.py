"""JSON schemas of the files that people edit, made from their types: editors complete and check by them."""

import json
from pathlib import Path

from pydantic import BaseModel

from slm.config.params import Params
from slm.experiments.search_space import Space
from slm.files import write_text
from slm.task.definition import Task
from slm.verdict.contract import Contract
from slm.verdict.waivers import Waivers

SCHEMAS = Path("schemas")
# Name of the schema, the file that it is of, and the file's type.
FILES: dict[str, tuple[str, type[BaseModel]]] = {
    "params": ("params.yaml", Params),
    "gates": ("gates.yaml", Contract),
    "task": ("task/task.yaml", Task),
    "waivers": ("waivers.yaml", Waivers),
    "search": ("search.yaml", Space),
}


def schema_text(file: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema() | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": file,
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_schemas() -> None:
    for name, (file, model) in FILES.items():
        path = SCHEMAS / f"{name}.schema.json"
        write_text(path, schema_text(file, model))
        print(path.as_posix())
