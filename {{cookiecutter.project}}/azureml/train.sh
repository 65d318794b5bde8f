#!/usr/bin/env bash
# The training, inside an Azure ML job: bash azureml/train.sh OUTPUT (PROFILE and BUDGET are in job.yml)
set -euo pipefail
proposal=$1

# The files were brought by another user, whose repositories neither git nor DVC trusts of itself.
git config --global --add safe.directory "$PWD"
# Azure ML names the compute's identity here; DVC's client for Azure looks there.
if test -n "${DEFAULT_IDENTITY_CLIENT_ID:-}"; then export AZURE_CLIENT_ID=$DEFAULT_IDENTITY_CLIENT_ID; fi

python3 bootstrap.py
PATH=$PWD/.venv/bin:$PATH
if test "$PROFILE" != default; then slm profile "$PROFILE"; fi
slm restore --budget "$BUDGET"

# A refused model is neither pushed nor proposed; its verdict is shown.
mkdir -p "$proposal/reports"
status=0
slm gate || status=$?
cp reports/verdict.md "$proposal/reports/"
if test "$status" != 0; then exit "$status"; fi
slm push
cp dvc.lock params.yaml "$proposal/"
