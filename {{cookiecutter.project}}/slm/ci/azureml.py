"""The training of train.yml on Azure ML. Standard library and the Azure CLI (`az`) alone.

    python3 -m slm.ci.azureml submit     starts azureml/job.yml, follows it, brings what it proposes
    python3 -m slm.ci.azureml cancel     ends the job of this run, where it still runs

Needs the repository variables named in `VARIABLES`, and the right of a workflow's job to ask for an identity
token. This logs in itself, again and again, because GitHub's token for Azure lasts minutes, what Azure gives
for it an hour, and a training longer.
"""

import argparse
import configparser
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from slm.ci.steps import output
from slm.errors import UserError, exit_on_user_error
from slm.files import replacing

VARIABLES = (
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_RESOURCE_GROUP",
    "AZURE_WORKSPACE",
    "AZURE_COMPUTE",
)
EXTENSION = "2.43.0"  # of the Azure CLI's extension `ml`
JOB = Path("azureml/job.yml")
DVC_CONFIG = Path(".dvc/config")
VERDICT_MARKDOWN = "reports/verdict.md"
PROPOSAL = ("dvc.lock", "params.yaml", VERDICT_MARKDOWN)
AUDIENCE = "api://AzureADTokenExchange"
JOB_ENDED = {"Completed", "Failed", "Canceled", "NotResponding", "Paused"}  # as Azure's own client has it
PAUSE_S = 5.0


def settings() -> dict[str, str]:
    values = {name: os.environ.get(name, "").strip() for name in VARIABLES}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise UserError(
            f"not set: {', '.join(missing)}; add it to the repository (Settings, Secrets and variables, "
            "Actions, Variables)"
        )
    return values


def check_remote() -> None:
    """The job hands data and model back through the DVC remote: it must be there, and one that the compute's
    identity opens.
    """
    config = configparser.RawConfigParser()
    config.read(DVC_CONFIG, encoding="utf-8")
    name = config.get("core", "remote", fallback="")
    remedy = (
        "`dvc remote add --force --default storage azure://CONTAINER/dvc && dvc remote modify storage "
        "account_name ACCOUNT`, and commit it"
    )
    if not name:
        raise UserError(
            f"{DVC_CONFIG}: no DVC remote; an Azure ML job needs one to hand back data and model: {remedy}"
        )
    section = f"'remote \"{name}\"'"
    url = config.get(section, "url", fallback="")
    if not url.startswith("azure://"):
        raise UserError(
            f"{DVC_CONFIG}: remote {name!r} is {url or 'nowhere'}; the compute's identity opens only "
            f"Azure Blob Storage: {remedy}"
        )
    if not config.get(section, "account_name", fallback=""):
        raise UserError(
            f"{DVC_CONFIG}: remote {name!r} has no account_name: "
            f"`dvc remote modify {name} account_name ACCOUNT`, and commit it"
        )


def az(*arguments: str, check: bool = True, show: bool = False) -> str:
    """One call of the Azure CLI. Messages go to the log; the output too if `show`, else it is returned."""
    program = shutil.which("az")
    if program is None:
        raise UserError("the Azure CLI `az` is not on this machine; GitHub's own Linux runners have it")
    out = None if show else subprocess.PIPE
    done = subprocess.run(
        [program, *arguments, "--only-show-errors"], stdout=out, text=True, encoding="utf-8", check=False
    )
    if done.returncode and check:
        raise UserError(
            f"az {' '.join(a for a in arguments[:3] if a[0] != '-')} ended with exit code "
            f"{done.returncode}; its output says why"
        )
    return (done.stdout or "").strip()


def identity_token() -> str:
    """What GitHub says this job is, signed, for Azure."""
    address, token = (
        os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"),
        os.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    )
    if not address or not token:
        raise UserError("GitHub gives this job no identity token: it needs `permissions: id-token: write`")
    request = urllib.request.Request(f"{address}&audience={urllib.parse.quote(AUDIENCE, safe='')}")
    request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            value = json.loads(response.read())["value"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"GitHub gives this job no identity token: {error}; run the job again") from None
    print(f"::add-mask::{value}", flush=True)
    return value


def login(values: dict[str, str]) -> None:
    identity = ("--username", values["AZURE_CLIENT_ID"], "--tenant", values["AZURE_TENANT_ID"])
    az("login", "--service-principal", *identity, "--federated-token", identity_token(), "--output", "none")
    az("account", "set", "--subscription", values["AZURE_SUBSCRIPTION_ID"])


def workspace_arguments(values: dict[str, str]) -> tuple[str, ...]:
    return "--resource-group", values["AZURE_RESOURCE_GROUP"], "--workspace-name", values["AZURE_WORKSPACE"]


def job_name() -> str:
    return f"train-{os.environ['GITHUB_RUN_ID']}-{os.environ.get('GITHUB_RUN_ATTEMPT', '1')}"


def started() -> Path:
    """A file that is there once a job may have been started."""
    return Path(os.environ.get("RUNNER_TEMP") or tempfile.gettempdir()) / f"azureml-{job_name()}"


def job_status(name: str, values: dict[str, str], check: bool = True) -> str:
    return az(
        "ml",
        "job",
        "show",
        "--name",
        name,
        *workspace_arguments(values),
        "--query",
        "status",
        "--output",
        "tsv",
        check=check,
    )


def follow(name: str, values: dict[str, str]) -> str:
    """Shows the job's log until it has ended; returns how. A log that breaks off, as it does after an hour,
    starts anew.
    """
    while True:
        az("ml", "job", "stream", "--name", name, *workspace_arguments(values), check=False, show=True)
        login(values)
        status = job_status(name, values)
        print(f"{name}: {status}", flush=True)
        if status in JOB_ENDED:
            return status
        time.sleep(PAUSE_S)


def bring(name: str, values: dict[str, str], files: tuple[str, ...]) -> list[str]:
    """Those of the files that the job has handed back, put in their places here."""
    with tempfile.TemporaryDirectory() as scratch:
        az(
            "ml",
            "job",
            "download",
            "--name",
            name,
            *workspace_arguments(values),
            "--output-name",
            "proposal",
            "--download-path",
            scratch,
            check=False,
        )
        folder = Path(scratch) / "named-outputs" / "proposal"
        found = [file for file in files if (folder / file).is_file()]
        for file in found:
            with replacing(Path(file)) as temporary:
                shutil.copyfile(folder / file, temporary)
    return found


def submit() -> None:
    values = settings()
    check_remote()
    login(values)
    az("extension", "add", "--name", "ml", "--version", EXTENSION, "--yes")
    name = job_name()
    started().touch()
    changes = {
        "compute": f"azureml:{values['AZURE_COMPUTE']}",
        "environment_variables.PROFILE": os.environ.get("PROFILE") or "default",
        "tags.commit": os.environ.get("GITHUB_SHA", "unknown"),
    }
    sets = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    az(
        "ml",
        "job",
        "create",
        "--file",
        JOB.as_posix(),
        "--name",
        name,
        *sets,
        *workspace_arguments(values),
        "--output",
        "none",
    )
    status = follow(name, values)
    good = status == "Completed"
    found = bring(name, values, PROPOSAL if good else (VERDICT_MARKDOWN,))
    if VERDICT_MARKDOWN in found:
        output(verdict="yes")
    if not good:
        raise UserError(
            f"the Azure ML job {name} ended as {status}: its log above says why; nothing is proposed"
        )
    if missing := sorted(set(PROPOSAL) - set(found)):
        raise UserError(
            f"the Azure ML job {name} has handed back no {', '.join(missing)}; nothing is proposed"
        )
    print(f"{name}: brought {', '.join(found)}")


def cancel() -> None:
    if not started().exists():
        print("no job was started")
        return
    values = settings()
    login(values)
    name = job_name()
    status = job_status(name, values, check=False)
    if status and status not in JOB_ENDED:
        az("ml", "job", "cancel", "--name", name, *workspace_arguments(values), "--output", "none")
    print(
        f"{name}: {status or 'not there'}{' (to be canceled)' if status and status not in JOB_ENDED else ''}"
    )


@exit_on_user_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["submit", "cancel"])
    {"submit": submit, "cancel": cancel}[parser.parse_args().command]()


if __name__ == "__main__":
    main()
