"""Generated pages are fresh, and hold what they are generated from."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from rankloop.v1 import catalog_pb2, model_pb2, ranking_pb2, record_pb2, stats_pb2, tracking_pb2
from scripts.configuration import fields
from scripts.generated_page import ROOT, cell, keep, table
from tests.unit.docs.documents import anchors

REFERENCE = ROOT / "docs" / "reference"
GENERATORS = sorted((ROOT / "scripts").glob("gen_*_page.py"))
PROTOS = (tracking_pb2, ranking_pb2, catalog_pb2, stats_pb2, model_pb2, record_pb2)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda path: path.stem)
def test_a_generated_page_is_fresh_and_made_by_make(generator: object) -> None:
    done = subprocess.run([sys.executable, str(generator), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    pages = re.search(r"^PAGES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pages is not None
    assert {path.stem for path in GENERATORS} == {f"gen_{name}_page" for name in pages[1].split()}


def test_the_api_page_has_every_call_message_field_and_value() -> None:
    text = (REFERENCE / "api.md").read_text()
    headings = anchors(REFERENCE / "api.md")
    for file in (module.DESCRIPTOR for module in PROTOS):
        for service in file.services_by_name.values():
            assert service.name.lower() in headings
            assert not [method.name for method in service.methods if f"| `{method.name}` | [" not in text]
        for message in file.message_types_by_name.values():
            section = text.partition(f"\n### {message.name}\n")[2].partition("\n### ")[0]
            assert not [field.name for field in message.fields if f"| `{field.name}` | {field.number} | " not in section], message.name
        for enum in file.enum_types_by_name.values():
            assert not [value.name for value in enum.values if f"| `{value.name}` | {value.number} | " not in text]


def test_the_configuration_page_has_every_setting() -> None:
    text = (REFERENCE / "configuration.md").read_text()
    for section, name in fields():
        assert f"\n| `{name}` | " in text.partition(f"\n## {section}\n")[2].partition("\n## ")[0], f"{section}.{name}"


def test_no_generated_page_says_what_python_says_of_objects() -> None:
    assert not [path.name for path in REFERENCE.glob("*.md") if re.search(r"<\w+[ .][^>]* at 0x|bound method|<class", path.read_text())]


def test_a_stale_page_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert keep("api.md", lambda: "something else", ["--check"], script="gen_api_page.py") == 1
    assert capsys.readouterr().err == "docs/reference/api.md is stale: run python scripts/gen_api_page.py\n"
    assert keep("api.md", lambda: "", ["--chek"], script="gen_api_page.py") == 2


def test_a_table_survives_what_stands_in_it() -> None:
    assert cell("a | b\n c") == "a \\| b c"
    assert table(("x", "y"), [("1", "2")]) == ["| x | y |", "| --- | --- |", "| 1 | 2 |"]
