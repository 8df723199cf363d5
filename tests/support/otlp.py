"""A real OpenTelemetry receiver: takes OTLP over HTTP and over gRPC, decodes it, and keeps it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

__all__ = ["Receiver", "over_grpc", "over_http"]


class Receiver:
    """What has arrived: `spans` and `metrics`, as `opentelemetry-proto` decodes them."""

    def __init__(self, endpoint: str = "") -> None:
        self.endpoint = endpoint
        self.arrived = threading.Condition()
        self.spans: list[Any] = []
        self.metrics: list[Any] = []

    def take_spans(self, request: Any) -> None:
        with self.arrived:
            for resource in request.resource_spans:
                self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.arrived.notify_all()

    def take_metrics(self, request: Any) -> None:
        with self.arrived:
            for resource in request.resource_metrics:
                self.metrics.extend(metric for scope in resource.scope_metrics for metric in scope.metrics)
            self.arrived.notify_all()

    def span(self, name: str) -> Any:
        """The only span of this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def metric(self, name: str) -> Any:
        """This metric as it was last received."""
        return [metric for metric in self.metrics if metric.name == name][-1]


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, a link or a data point as a dict."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@contextmanager
def over_http() -> Iterator[Receiver]:
    """A receiver at `http://.../v1/traces` and `/v1/metrics`."""
    receiver = Receiver()
    take: dict[str, tuple[type[Any], Callable[[Any], None], type[Any]]] = {
        "/v1/traces": (
            trace_service_pb2.ExportTraceServiceRequest,
            receiver.take_spans,
            trace_service_pb2.ExportTraceServiceResponse,
        ),
        "/v1/metrics": (
            metrics_service_pb2.ExportMetricsServiceRequest,
            receiver.take_metrics,
            metrics_service_pb2.ExportMetricsServiceResponse,
        ),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request_type, keep, response_type = take[self.path]
            keep(request_type.FromString(body))
            answer = response_type().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def over_grpc() -> Iterator[Receiver]:
    """A receiver of the two gRPC services."""
    receiver = Receiver()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            receiver.take_spans(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            receiver.take_metrics(request)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    receiver.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        server.stop(None).wait()
