"""Prometheus metrics: a port per process, and the metrics that every process has."""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

import prometheus_client

from runtime.errors import Misconfigured

LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds."""


class MetricsPort:
    """Where Prometheus scrapes this process."""

    def __init__(self, host: str, port: int) -> None:
        try:
            server, self._thread = prometheus_client.start_http_server(port, addr=host)
        except OSError as error:
            raise Misconfigured(
                f"the metrics port {host}:{port} cannot be opened ({error.strerror}); choose another with --metrics-port"
            ) from error
        self._server: WSGIServer = server
        self.address = f"http://{host}:{server.server_port}/metrics"

    def close(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
