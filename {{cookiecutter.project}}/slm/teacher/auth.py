"""Credentials of the endpoint: a key from the environment, or tokens of Entra ID. No message, record or store
ever holds either, nor another secret of the environment (slm/teacher/redaction.py).

Azure's own library signs in to Entra ID with the identity that it finds: a managed identity, a workflow's
federated identity, `az login`, or a service principal from the environment. It takes a new token minutes
before the old one expires.
"""

import os
import re
from typing import Any

from slm.config.synthesis import Endpoint
from slm.errors import UserError
from slm.teacher.redaction import Secrets

# Variables that hold secrets by their names, such as AWS_SECRET_ACCESS_KEY, AZURE_CLIENT_SECRET, HF_TOKEN.
SECRET_VARIABLE = re.compile(
    r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|CONNECTION_STRING|IDENTITY_HEADER)$", re.IGNORECASE
)
SCOPE = "https://cognitiveservices.azure.com/.default"


class Credential:
    """Called before each request, as the official client does with an `api_key` that is a function."""

    def __init__(self, settings: Endpoint) -> None:
        """Raises UserError: there is no key, or nothing to sign in with."""
        self._secrets = Secrets()  # all that were sent in this run: any of them may come back
        self._azure: Any = None
        for secret in secrets_of_environment():
            self._secrets.add(secret)
        if settings.auth == "key":
            self._key = secret_of(settings)
            self._secrets.add(self._key)
            self.refused = f"does not accept the key in {settings.api_key_env}", "export a valid key"
            return
        try:
            from azure.core.exceptions import AzureError
            from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider
        except ImportError:
            raise UserError(
                "params.yaml: synthesize.endpoint.auth: entra needs azure-identity; run `slm extra entra`"
            ) from None
        self._faults = (AzureError, ValueError)
        self._azure = DefaultAzureCredential()
        self._token = get_bearer_token_provider(self._azure, SCOPE)
        self.refused = (
            "does not accept who you are signed in as",
            "give it the role Cognitive Services OpenAI User on the resource",
        )

    async def __call__(self) -> str:
        """The key, or a token that is valid for some minutes more.

        Raises:
            UserError: signing in failed; all answers so far are kept.
        """
        if self._azure is None:
            return self._key
        try:
            token = await self._token()
        except self._faults as error:
            said = "; ".join(line.strip() for line in self.redacted(str(error)).splitlines() if line.strip())
            raise UserError(
                f"Entra ID gives no token: {said[:800]}; sign in (`az login`, a managed identity, or "
                "AZURE_CLIENT_ID, AZURE_TENANT_ID and "
                "AZURE_CLIENT_SECRET), or use a key (synthesize.endpoint.auth: key); answers so far are kept"
            ) from None
        self._secrets.add(token)
        return token

    def redacted(self, value: Any) -> Any:
        """A JSON value without the key, wherever in it the key stands, and in whatever form."""
        return self._secrets.redacted(value)

    async def close(self) -> None:
        if self._azure is not None:
            await self._azure.close()


def secret_of(settings: Endpoint) -> str:
    """The key, from the environment; no message ever holds it."""
    key, name = os.environ.get(settings.api_key_env, ""), settings.api_key_env
    if not key:
        raise UserError(
            f"the endpoint's key is not set: export {name}=… (params.yaml: synthesize.endpoint.api_key_env)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"{name} holds a blank, a line break or another character that no key has; export it again "
            "without that character"
        )
    return key


def secrets_of_environment() -> list[str]:
    """Values of variables that are named as secrets are. A path, a word or a sentence is none."""
    return [
        value
        for name, value in os.environ.items()
        if SECRET_VARIABLE.search(name)
        and re.fullmatch(r"[!-~]{8,}", value)
        and re.search(r"\d", value)
        and not os.path.exists(value)
    ]
