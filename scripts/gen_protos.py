"""Generates the Python stubs of `protos/` into `rankloop/`; with --check, says whether they are fresh.

python scripts/gen_protos.py
python scripts/gen_protos.py --check
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(target: Path) -> None:
    """Writes the stubs of every proto below `target`, at the path that is also their import path."""
    sources = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
    well_known = str(resources.files("grpc_tools") / "_proto")
    outputs = [
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet,only_async:{target}",
    ]
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *plugins, *outputs, *sources]) != 0:
        raise SystemExit("gen_protos: protoc refused the protos; its message stands above")


def stubs(folder: Path) -> dict[str, str]:
    """The generated files below `folder/rankloop`, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in (folder / "rankloop").rglob("*_pb2*.py*")
        if path.suffix in (".py", ".pyi")
    }


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            fresh, kept = stubs(Path(folder)), stubs(ROOT)
        stale = sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))
        if stale:
            print("gen_protos: stale stubs, run `make protos`:", *stale, sep="\n  ", file=sys.stderr)
        return 1 if stale else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
