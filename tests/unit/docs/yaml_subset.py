"""As much of YAML as the manifests of the documentation use: mappings, lists, plain and quoted scalars, lists in brackets; no more."""

from __future__ import annotations

import json
import re
from typing import Any

Lines = list[tuple[int, str]]


def parse(text: str) -> Any:
    """What a document says. Raises ValueError for what this does not know."""
    lines = [
        (len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    value, rest = _node(lines, lines[0][0])
    if rest:
        raise ValueError(f"indentation: {rest[0][1]!r}")
    return value


def _node(lines: Lines, indent: int) -> tuple[Any, Lines]:
    return _sequence(lines, indent) if lines[0][1].startswith("- ") else _mapping(lines, indent)


def _sequence(lines: Lines, indent: int) -> tuple[list[Any], Lines]:
    found: list[Any] = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        inner = indent + 2
        if re.match(r"- [\w.-]+:( |$)", lines[0][1]):
            value, lines = _mapping([(inner, lines[0][1][2:]), *lines[1:]], inner)
        else:
            value, lines = _scalar(lines[0][1][2:]), lines[1:]
        found.append(value)
    return found, lines


def _mapping(lines: Lines, indent: int) -> tuple[dict[str, Any], Lines]:
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
        matched = re.fullmatch(r"([\w./-]+):(?: (.*))?", lines[0][1])
        if matched is None or matched[1] in found:
            raise ValueError(f"no mapping: {lines[0][1]!r}")
        name, text = matched[1], matched[2]
        lines = lines[1:]
        if text:
            found[name] = _scalar(text)
        elif lines and (lines[0][0] > indent or (lines[0][0] == indent and lines[0][1].startswith("- "))):
            found[name], lines = _node(lines, lines[0][0])
        else:
            found[name] = None
    return found, lines


def _scalar(text: str) -> Any:
    if text[0] in '["':
        return json.loads(text)
    if text[0] in "{&*!|>%@`'" or ": " in text:
        raise ValueError(f"not known here: {text!r}")
    return text
