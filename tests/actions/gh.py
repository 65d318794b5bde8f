"""`gh attestation verify` as the tests know it: what the stand-in of the action `attest` has said, held against the flags.

Sigstore's cryptography is not in it: that runs on GitHub alone. What is tested is who asks for what, and what follows from the answer.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("words", nargs=3)
for flag in ("repo", "signer-workflow", "source-ref", "source-digest"):
    parser.add_argument(f"--{flag}", required=True)
parser.add_argument("--deny-self-hosted-runners", action="store_true", required=True)
asked = parser.parse_args()
*command, file = asked.words
assert command == ["attestation", "verify"], command
store = Path(os.environ["ACT_ATTESTATIONS"])
wanted = {
    "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
    "workflow": Path(asked.signer_workflow.removeprefix(f"{asked.repo}/.github/workflows/")).stem,
    "ref": asked.source_ref,
    "sha": asked.source_digest,
    "repository": asked.repo,
}
rows = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()] if store.exists() else []
if wanted not in rows:
    sys.exit(f"no attestation matches {wanted}")
print(f"verified {file}")
