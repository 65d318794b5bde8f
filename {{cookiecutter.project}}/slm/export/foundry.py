"""Ask a package through Foundry Local, as a user's application would. Works without a network.

    python -m slm.export.foundry dist/home-assistant/model '[{"role": "user", "content": "turn off the kitchen
    light"}]' 72

Foundry Local brings its own copy of the runtime, so it lives in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from slm.errors import UserError


def ask(folder: Path, messages: list[dict[str, str]], max_new_tokens: int) -> str:
    """The model's answer to a conversation whose last message is the user's.

    Raises:
        UserError: Foundry Local cannot load the folder or gives no answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"SLM_FOUNDRY_DATA": scratch}
        command = [
            sys.executable,
            "-m",
            "slm.export.foundry",
            str(folder),
            json.dumps(messages),
            str(max_new_tokens),
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )
    if done.returncode or not done.stdout.strip():
        raise UserError(
            f"{folder}: Foundry Local cannot use it: "
            f"{' / '.join(done.stderr.strip().splitlines()[-2:]) or 'no answer'}"
        )
    return json.loads(done.stdout.splitlines()[-1])["answer"]


def ask_here(folder: Path, messages: list[dict[str, str]], max_new_tokens: int) -> str:
    """The same in this process."""
    from foundry_local_sdk import (
        CatalogType,
        ChatSession,
        Configuration,
        FoundryLocalManager,
        MessageItem,
        ModelInfoBuilder,
        Request,
        RequestOptions,
        SearchOptions,
        TextItem,
    )

    data = os.environ.get("SLM_FOUNDRY_DATA")
    config = Configuration(
        app_name="slm",
        app_data_dir=data,
        model_cache_dir=data,
        logs_dir=data,
        disable_nonessential_telemetry=True,
    )
    FoundryLocalManager.initialize(config)
    manager = FoundryLocalManager.instance
    assert manager is not None  # initialised above
    catalog = manager.get_catalog(CatalogType.LOCAL)
    with ModelInfoBuilder() as metadata:
        metadata.set_string_property("task", "chat-completion")
        model = catalog.register_model(
            model_path=str(folder.resolve()), model_id="slm-generic-cpu:1", metadata=metadata
        )
    model.load()
    with ChatSession(model) as session:
        session.set_options(
            RequestOptions(search=SearchOptions(temperature=0.0, max_output_tokens=max_new_tokens))
        )
        request = Request()
        for message in messages:
            request.add_item(getattr(MessageItem, message["role"])(message["content"]))
        with request, session.process_request(request) as response:
            parts = [part for item in response if isinstance(item, MessageItem) for part in item.parts]
            answer = "".join(part.text for part in parts if isinstance(part, TextItem))
    model.unload()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("messages", type=json.loads)
    parser.add_argument("max_new_tokens", type=int)
    arguments = parser.parse_args()
    answer = ask_here(arguments.folder, arguments.messages, arguments.max_new_tokens)
    print(json.dumps({"answer": answer}))


if __name__ == "__main__":
    main()
