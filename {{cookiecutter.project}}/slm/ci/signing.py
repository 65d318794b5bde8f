"""Who sealed a package, and who signed it. Standard library only; the programs that know cryptography are
GitHub's `gh` and model-signing, the latter in an environment of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from slm import github
from slm.errors import UserError

SIGNING = Path(".signing")  # the environment of the program that signs
ISSUER = "https://token.actions.githubusercontent.com"
SEALER, RELEASER = ".github/workflows/main.yml", ".github/workflows/release.yml"


def _run(*command: str) -> int:
    return subprocess.run(command, check=False).returncode


def signing_program() -> list[str]:
    """How model-signing is started; its locked packages are installed when it is first needed."""
    python = str(SIGNING / ("Scripts" if os.name == "nt" else "bin") / "python")
    if not SIGNING.exists():
        install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        for command in (
            [sys.executable, "-I", "-m", "venv", str(SIGNING)],
            [python, "-I", "-m", *install, "-r", "requirements/signing.txt"],
        ):
            if _run(*command):
                shutil.rmtree(SIGNING, ignore_errors=True)
                raise UserError(f"`{' '.join(command[:5])}` failed; its output above says why")
    return [python, "-I", "-m", "model_signing"]


def sign_folder(folder: Path, signature: Path, key: Path | None) -> None:
    """Sign every file of a folder, with the identity of this workflow (sigstore) or with a private key."""
    signer = ["key", "--private_key", str(key)] if key else ["sigstore", "--use_ambient_credentials"]
    signature.parent.mkdir(parents=True, exist_ok=True)
    if _run(*signing_program(), "sign", *signer, "--signature", str(signature), str(folder)):
        raise UserError(f"{folder} could not be signed; the output above says why")


def verify_signature(folder: Path, signature: Path, tag: str, public_key: Path | None) -> None:
    """Refuse a signature that is not of these files, or not of the release's workflow at this tag."""
    identity = f"https://github.com/{github.repository()}/{RELEASER}@refs/tags/{tag}"
    signer = ["sigstore", "--identity", identity, "--identity_provider", ISSUER]
    if public_key:
        signer = ["key", "--public_key", str(public_key)]
    if _run(*signing_program(), "verify", *signer, "--signature", str(signature), str(folder)):
        raise UserError(
            f"{signature}: no valid signature of {folder}, or it could not be checked; the output above says "
            "which. Do not use this release before it is"
        )


def verify_attestation(file: Path, commit: str) -> None:
    """Refuse a file unless main's workflow attested it, on a runner of GitHub's, for this commit.

    https://cli.github.com/manual/gh_attestation_verify
    """
    program = shutil.which("gh")
    if program is None:
        raise UserError(
            f"{file}: its attestation could not be checked, since GitHub's command `gh` is not installed. "
            "Install it (https://cli.github.com), log in, and try again"
        )
    repository = github.repository()
    branch = github.call("GET", f"repos/{repository}")["default_branch"]
    wanted = ["--repo", repository, "--signer-workflow", f"{repository}/{SEALER}"]
    wanted += ["--source-ref", f"refs/heads/{branch}", "--source-digest", commit]
    if _run(program, "attestation", "verify", str(file), *wanted, "--deny-self-hosted-runners"):
        raise UserError(
            f"{file}: {SEALER} on {branch} has not attested these bytes for commit {commit[:12]}, or that "
            "could not be checked; the output above says which. Do not use this package before it is"
        )
