"""The whole configuration: defaults, then `rankloop.toml`, then `RANKLOOP_<SECTION>_<FIELD>`; the later wins.

Every field is described where it is declared, in its room's `settings.py`; `rankloop config` prints them all.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from collector.settings import CollectorSettings, LabelSettings, RetentionSettings
from ranker.settings import FeatureSettings, RankerSettings
from ranker.training.settings import TrainerSettings
from runtime.configuration import Section
from runtime.embedded import EmbeddedSettings
from runtime.errors import Misconfigured
from runtime.settings import LogSettings, MetricsSettings, MongoSettings
from server.settings import ServerSettings

DEFAULT_FILE = Path("rankloop.toml")
PREFIX = "RANKLOOP_"

OTHER_VARIABLES = {
    "RANKLOOP_CONFIG": "the configuration file",
    "RANKLOOP_MONGOD": "the mongod to embed, as embedded.mongod",
    "RANKLOOP_ADDRESS": "host:port of the server that commands speak to",
    "RANKLOOP_DATA_DIR": "where `rankloop up` keeps its data",
}
"""Variables that are read, and belong to no field of a section."""

SERVICE_LINK = re.compile(r"RANKLOOP_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP)(_.*)?)")
"""What Kubernetes puts into every container for a service called rankloop."""


class Configuration(Section):
    """Everything that can be set."""

    mongo: MongoSettings = MongoSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    server: ServerSettings = ServerSettings()
    collector: CollectorSettings = CollectorSettings()
    labels: LabelSettings = LabelSettings()
    retention: RetentionSettings = RetentionSettings()
    ranker: RankerSettings = RankerSettings()
    features: FeatureSettings = FeatureSettings()
    trainer: TrainerSettings = TrainerSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()


def load(path: Path | None = None, env: Mapping[str, str] = os.environ) -> Configuration:
    """The configuration of this process.

    `path` is the file to read; without one it is `RANKLOOP_CONFIG`, else `rankloop.toml` in the working directory if there is one.

    Raises:
        Misconfigured: one sentence per fault, with its place and what was expected.
    """
    if path is None:
        path = Path(env["RANKLOOP_CONFIG"]) if env.get("RANKLOOP_CONFIG") else None
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    values = _read(path) if path is not None else {}
    from_env: dict[tuple[str, ...], str] = {}
    for variable, field_path in sorted(_variables(env)):
        _put(values, field_path, _decoded(env[variable], field_path))
        from_env[field_path] = variable
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise Misconfigured("\n".join(_sentence(fault, path, from_env) for fault in error.errors())) from None


def fields(section: type[Section] = Configuration, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every field that can be set, sections within sections included."""
    for name in section.model_fields:
        if inner := _inner(section, name):
            yield from fields(inner, (*above, name))
        else:
            yield (*above, name)


def masked_uri(uri: str) -> str:
    """The URI without its password."""
    return re.sub(r"(//[^:/@]*):[^@]*@", r"\1:…@", uri)


def _variables(env: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The variables of `env` that set a field, with the field's path."""
    known = {PREFIX + "_".join(path).upper(): path for path in fields()}
    known["RANKLOOP_MONGOD"] = ("embedded", "mongod")
    for variable, value in env.items():
        if variable in known:
            # A Kubernetes service called rankloop-server sets RANKLOOP_SERVER_PORT=tcp://…, and means nothing by it.
            if value and not value.startswith(("tcp://", "udp://")):
                yield variable, known[variable]
        elif variable.startswith(PREFIX) and variable not in OTHER_VARIABLES and not _is_service_link(variable, value):
            raise Misconfigured(f"{variable}: there is no such setting{_nearest(variable, [*known, *OTHER_VARIABLES])}")


def _is_service_link(variable: str, value: str) -> bool:
    return SERVICE_LINK.fullmatch(variable) is not None or (variable.endswith("_PORT") and value.startswith(("tcp://", "udp://")))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise Misconfigured(f"the configuration file {path} cannot be read ({error.strerror}); name another with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the configuration file {path} is not TOML: {error}") from None


def _decoded(text: str, path: tuple[str, ...]) -> Any:
    """Tables are given as JSON, lists as JSON or as words with commas between them; whatever else as it stands."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # then it is a text that begins so, and the field will say what it expected
    section: type[Section] = Configuration
    for name in path[:-1]:
        section = _inner(section, name) or section
    if get_origin(section.model_fields[path[-1]].annotation) in (list, tuple):
        return [word.strip() for word in text.split(",") if word.strip()]
    return text


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(values.setdefault(name, {}), dict):
            return  # the file has no table there, and will be told so
        values = values[name]
    values[path[-1]] = value


def _sentence(fault: ErrorDetails, file: Path | None, from_env: Mapping[tuple[str, ...], str]) -> str:
    path = tuple(str(part) for part in fault["loc"])
    where = f"{file}: {'.'.join(path)}"
    for field_path, variable in from_env.items():
        if path[: len(field_path)] == field_path:
            where = ".".join((variable, *path[len(field_path) :]))
    if fault["type"] == "extra_forbidden":
        siblings = [".".join((*path[:-1], name)) for name in _names_beside(path)]
        return f"{where}: there is no such setting{_nearest('.'.join(path), siblings or ['.'.join(one) for one in fields()])}"
    value = fault["input"]
    shown = f", not {masked_uri(str(value))!r}" if isinstance(value, str | int | float) else ""
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("should ")
    return f"{where} should {expected}{shown}" if fault["msg"].startswith("Input should") else f"{where}: {expected}{shown}"


def _names_beside(path: tuple[str, ...]) -> Iterable[str]:
    section: type[Section] = Configuration
    for name in path[:-1]:
        inner = _inner(section, name)
        if inner is None:
            return ()
        section = inner
    return section.model_fields


def _inner(section: type[Section], name: str) -> type[Section] | None:
    """The section that a field of `section` is, if it is one."""
    field = section.model_fields.get(name)
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _nearest(name: str, known: Iterable[str]) -> str:
    bare = {one.removeprefix(PREFIX): one for one in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.6)
    return f"; did you mean {bare[close[0]]}?" if close else "; `rankloop config` lists them all"
