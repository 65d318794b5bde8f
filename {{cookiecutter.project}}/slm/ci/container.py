"""The container image of a sealed package: built, started, asked once, and pushed if a registry token is
there.

python3 -m slm.ci.container ghcr.io/owner/name:v1       (standard library and docker alone)
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from slm.errors import UserError, exit_on_user_error
from slm.files import unpack
from slm.github import LARGEST_ASSET_MB

BUILD_CONTEXT = Path("image")
SEALED_FOLDER = Path("sealed")


def prepare_context() -> str:
    """Put the sealed model where the Dockerfile takes it from; returns the package's name."""
    seal = json.loads((SEALED_FOLDER / "SEAL.json").read_text(encoding="utf-8"))
    shutil.rmtree(BUILD_CONTEXT, ignore_errors=True)
    unpack(SEALED_FOLDER / f"{seal['name']}.tar.gz", BUILD_CONTEXT, LARGEST_ASSET_MB)
    (BUILD_CONTEXT / seal["name"] / "model").rename(BUILD_CONTEXT / "model")
    return seal["name"]


def docker(*arguments: str, text: str | None = None, variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | (variables or {}),
    )
    if done.returncode:
        raise UserError(
            f"docker {arguments[0]} ended with exit code {done.returncode}; its output above says why"
        )
    return done.stdout.strip()


def ask_container(address: str, token: str, patience_s: float = 60) -> str:
    """The answer to one request, once the server is up."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "turn on the light"}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{address}/v1/chat/completions", body, headers)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())["choices"][0]["message"]["content"]
        except OSError as error:  # refused, reset, timed out, or an error's status
            if time.monotonic() > deadline:
                raise UserError(f"{address} does not answer: {error}") from None
            time.sleep(0.5)


def make_image(image: str) -> None:
    """Build the image, start it, ask it once, and push it where the variable REGISTRY_TOKEN is set."""
    prepare_context()
    docker("build", "--tag", image, ".")
    server_token = secrets.token_urlsafe(32)
    # By the variable's name alone: a value on the command line is there for all users to read.
    options = ("--detach", "--rm", "--publish", "127.0.0.1:8000:8000", "--env", "SLM_TOKEN")
    container = docker("run", *options, image, variables={"SLM_TOKEN": server_token})
    try:
        print(f"the image answers: {ask_container('http://127.0.0.1:8000', server_token)}")
    finally:
        docker("stop", container)
    token = os.environ.get("REGISTRY_TOKEN")
    if token:
        docker(
            "login",
            image.split("/")[0],
            "--username",
            os.environ.get("GITHUB_ACTOR", "x"),
            "--password-stdin",
            text=token,
        )
        docker("push", image)


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="name and tag, such as ghcr.io/owner/name:v1")
    make_image(parser.parse_args().image)


if __name__ == "__main__":
    main()
