"""MLServer with its LightGBM runtime, as a peer: scoring only, over gRPC, in a virtual environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import lightgbm
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from runtime.child import Child

PACKAGES: Final = ("mlserver==1.7.1", "mlserver-lightgbm==1.7.1", "protobuf<7")
MODEL: Final = "forest"
START_SECONDS: Final = 120.0

_FIELD: Final = descriptor_pb2.FieldDescriptorProto


@asynccontextmanager
async def mlserver(directory: Path, booster: lightgbm.Booster) -> AsyncIterator[Callable[[NDArray[np.float64]], Any]]:
    """Starts it with a forest; yields what turns (n, n_features) float64 into a call that is awaited for the scores."""
    python = await asyncio.to_thread(_environment)
    folder = directory / "mlserver"
    folder.mkdir()
    booster.save_model(folder / "forest.txt")
    ports = [_free_port() for _ in range(3)]
    settings: dict[str, Any] = {
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": MODEL, "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": "./forest.txt"}}
    (folder / "model-settings.json").write_text(json.dumps(model))
    child = Child.start(
        [str(python.parent / "mlserver"), "start", str(folder)],
        output=directory / "mlserver.log",
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        request, response = _messages()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            method: Any = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )

            def call(matrix: NDArray[np.float64]) -> Any:
                message = request(model_name=MODEL)
                tensor = message.inputs.add(name="rows", datatype="FP64", shape=matrix.shape)
                tensor.contents.fp64_contents.extend(matrix.ravel())
                return lambda: method(message, timeout=30)

            await _answers(call(np.zeros((1, booster.num_feature()))), child, directory / "mlserver.log")
            yield call
    finally:
        await child.stop(grace_seconds=20)


async def _answers(call: Callable[[], Any], child: Child, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            if child.exit_code is not None:
                raise RuntimeError(f"mlserver ended; its log is {log}:\n{log.read_text(errors='replace')[-2000:]}")
            try:
                await call()
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)


def _environment() -> Path:
    """The interpreter of its virtual environment, which is made the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rankloop" / "mlserver-1.7.1"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making a virtual environment with {', '.join(PACKAGES)} in {folder} …")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
        (folder / "made").touch()
    return python


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _messages() -> tuple[Any, Any]:
    """Request and response of the Open Inference Protocol, as far as this needs them."""
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")

    def add(message: Any, name: str, number: int, kind: int, *, repeated: bool = False, of: str = "") -> None:
        label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, label=label, type_name=f".inference.{of}" if of else None)

    contents = file.message_type.add(name="InferTensorContents")
    add(contents, "fp64_contents", 7, _FIELD.TYPE_DOUBLE, repeated=True)
    tensor = file.message_type.add(name="InferTensor")
    add(tensor, "name", 1, _FIELD.TYPE_STRING)
    add(tensor, "datatype", 2, _FIELD.TYPE_STRING)
    add(tensor, "shape", 3, _FIELD.TYPE_INT64, repeated=True)
    add(tensor, "contents", 5, _FIELD.TYPE_MESSAGE, of="InferTensorContents")
    request = file.message_type.add(name="ModelInferRequest")
    add(request, "model_name", 1, _FIELD.TYPE_STRING)
    add(request, "inputs", 5, _FIELD.TYPE_MESSAGE, repeated=True, of="InferTensor")
    response = file.message_type.add(name="ModelInferResponse")
    add(response, "model_name", 1, _FIELD.TYPE_STRING)
    add(response, "outputs", 5, _FIELD.TYPE_MESSAGE, repeated=True, of="InferTensor")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    known = [pool.FindMessageTypeByName(f"inference.{name}") for name in ("ModelInferRequest", "ModelInferResponse")]
    return message_factory.GetMessageClass(known[0]), message_factory.GetMessageClass(known[1])
