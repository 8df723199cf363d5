"""Fetch text over HTTP, and say clearly what went wrong. Knows neither metrics nor the debug page."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["DebugPageError", "EndpointError", "fetch", "parts_of", "printable"]

_TIMEOUT = 5.0  # seconds
_LARGEST = 64 * 2**20  # bytes of a response


class EndpointError(Exception):
    """The endpoint could not be read. The message gives the reason, and what to check."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class DebugPageError(EndpointError):
    """The endpoint is a debug page, where metrics were expected."""


def printable(text: str) -> str:
    """Return the text without what a terminal would obey: control characters, line breaks, changes of direction."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def parts_of(text: str, example: str) -> urllib.parse.SplitResult:
    """Return the parts of a URL, which may lack `http://`. Raises `ValueError` if `text` is not an HTTP address."""
    with contextlib.suppress(ValueError):  # unbalanced brackets, or an invalid port
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        if parts.port != 0 and parts.scheme in ("http", "https") and parts.hostname:
            return parts
    raise ValueError(f"must be a URL like {example}, not {text!r}")


def fetch(url: str, accept: str, not_found: str = "") -> tuple[str, str]:
    """Return the content type and the text of the response. Raises `EndpointError`, for a 404 with `not_found`."""
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "aiosqlitepool-top"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            kind, body = response.headers.get("Content-Type", ""), response.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        error.close()
        hint = not_found if error.code == http.HTTPStatus.NOT_FOUND else ""
        raise EndpointError(f"{url} returned HTTP status {error.code} {error.reason}{hint}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise EndpointError(f"cannot reach {url}: {reason}") from error
    if len(body) > _LARGEST:
        raise EndpointError(f"{url} returned more than {_LARGEST // 2**20} MiB")
    return kind.partition(";")[0].strip().lower(), body.decode(errors="replace")
