from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from prometheus_client import CollectorRegistry, start_http_server

Answer = tuple[int, str, bytes]


@contextmanager
def metrics_of(registry: CollectorRegistry) -> Iterator[str]:
    """The address of a real endpoint of prometheus_client."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[Callable[[CollectorRegistry], str]]:
    """Serves a registry for the rest of the test; gives the address."""
    with ExitStack() as stack:
        yield lambda registry: stack.enter_context(metrics_of(registry))


@pytest.fixture
def says() -> Iterator[Callable[..., str]]:
    """Serves the given answers, one after the other and the last for ever; gives the address."""
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(_answering(answers))


@contextmanager
def _answering(answers: tuple[Answer, ...]) -> Iterator[str]:
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()
