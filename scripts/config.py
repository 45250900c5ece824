"""`rankloop config`: the configuration in force."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.configuration import Section
from scripts.configuration import Configuration, load, masked_uri


def config(
    path: Annotated[Path | None, typer.Option("--config", help="The file to read; otherwise RANKLOOP_CONFIG or ./rankloop.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Prints the configuration in force as TOML, every setting with what it means and the variable that sets it.

    Passwords are left out. Without a file and variables these are the defaults, a good beginning for a rankloop.toml.

    Examples:

        rankloop config

        rankloop config > all-settings.toml

        RANKLOOP_SERVER_PORT=6000 rankloop config --json
    """
    configuration = load(path)
    if as_json:
        values = configuration.model_dump(mode="json")
        values["mongo"]["uri"] = masked_uri(values["mongo"]["uri"])
        print(json.dumps(values, indent=2))
    else:
        print("\n".join(toml(configuration)))


def toml(configuration: Configuration) -> Iterator[str]:
    """The configuration as lines of TOML."""
    for name in type(configuration).model_fields:
        yield from _section((name,), getattr(configuration, name))


def _section(path: tuple[str, ...], section: Section) -> Iterator[str]:
    yield f"[{'.'.join(path)}]"
    inner: list[tuple[tuple[str, ...], Section]] = []
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            inner.append(((*path, name), value))
            continue
        yield from (f"# {line}" for line in (field.description or "").splitlines())
        yield f"# RANKLOOP_{'_'.join((*path, name)).upper()}"
        shown = masked_uri(value) if isinstance(value, str) else values[name]
        yield f"# {name} =" if shown is None else f"{name} = {_value(shown)}"
        yield ""
    for inner_path, inner_section in inner:
        yield from _section(inner_path, inner_section)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items() if one is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and booleans are written alike in both
