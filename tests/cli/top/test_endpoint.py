from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread

import pytest

from aiosqlitepool.cli.top.endpoint import EndpointError, fetch, parts_of, printable


def test_it_returns_the_kind_and_the_text(says: Callable[..., str]) -> None:
    url = says((200, "Text/Plain; charset=utf-8", "é\xff".encode()))
    assert fetch(url, "*/*") == ("text/plain", "é\xff")


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/metrics"
        with pytest.raises(EndpointError, match=rf"cannot reach {url}: .*refused"):
            fetch(url, "*/*")


def test_only_what_was_not_found_may_be_elsewhere(says: Callable[..., str]) -> None:
    for status, complaint in (
        (404, "returned HTTP status 404 Not Found; look there$"),
        (503, "status 503 Service Unavailable$"),
    ):
        with pytest.raises(EndpointError, match=complaint):
            fetch(says((status, "text/html", b"<h1>no")), "*/*", "; look there")


def test_a_response_without_an_end_is_not_read_to_it(says: Callable[..., str]) -> None:
    with pytest.raises(EndpointError, match="returned more than 64 MiB"):
        fetch(says((200, "text/plain", b"#" * (2**26 + 1))), "*/*")


def test_a_server_that_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"220 mail.test ready\r\n")

        thread = Thread(target=greet, daemon=True)
        thread.start()
        with pytest.raises(EndpointError, match="cannot reach"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/metrics", "*/*")
        thread.join()


@pytest.mark.parametrize(
    "text", ["", "http://", "file:///etc/passwd", "ftp://x", "x:port", "x:99999", "/metrics", "[::1"]
)
def test_what_is_no_address_is_refused_by_its_value(text: str) -> None:
    with pytest.raises(ValueError, match="must be a URL like http://127.0.0.1:8000/metrics, not "):
        parts_of(text, "http://127.0.0.1:8000/metrics")


def test_nothing_in_a_text_is_obeyed_by_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202ec\ud800 é 表 🗂") == "a�[2Jb��c� é 表 🗂"
    assert str(EndpointError("no\x1b[2J")) == "no�[2J"
