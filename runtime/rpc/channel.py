"""Channels to other processes of ours."""

from __future__ import annotations

import grpc


def open_channel(address: str, *, max_message_bytes: int = 16 * 2**20) -> grpc.aio.Channel:
    """A channel that reconnects quickly: a worker that comes back is to be found within a second."""
    return grpc.aio.insecure_channel(
        address,
        options=(
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )
