"""What is wrong with a request, in the form in which OpenAI's clients read it."""

import math

from starlette.responses import JSONResponse

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Fault(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what is wrong, and the way out.
        param: the field that it is about.
        code: for programs.
        retry_after: seconds after which another try may do; None: none will.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """In OpenAI's form."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"x-should-retry": "false"}  # which OpenAI's clients heed: they would ask thrice
        if self.retry_after is not None:
            headers = {"retry-after": str(math.ceil(self.retry_after))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def not_supported(param: str, why: str) -> Fault:
    """Of a field that would change the answer, and is not carried out."""
    return Fault(400, f"{param}: {why}", param=param, code="unsupported_parameter")
