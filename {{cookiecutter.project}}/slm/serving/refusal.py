"""What the server answers in place of what was asked: OpenAI's form of an error, and its status."""

from typing import Any

from starlette.responses import JSONResponse


class RequestError(Exception):
    """A refusal in OpenAI's words: the field (param), a code that clients compare, and the kind (type)."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status
        self.kind, self.headers = kind, headers

    @property
    def body(self) -> dict[str, Any]:
        fault = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": fault}


def refusal(error: RequestError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)
