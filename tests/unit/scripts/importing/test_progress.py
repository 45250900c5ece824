"""How far an import got: kept, taken up, forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime.errors import Misconfigured
from scripts.importing.lines import Line
from scripts.importing.progress import Progress, ProgressFile


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.jsonl"
    path.write_text("{}\n")
    return path


def kept(tmp_path: Path, source: Path, run: str = "server") -> ProgressFile:
    return ProgressFile(tmp_path / "state", source, run=run, bad_lines=None)


def interrupted(file: ProgressFile) -> Progress:
    """An import that dealt with five lines, two of them bad, and wrote another bad line that it did not live to count."""
    progress = file.load()
    file.begin(progress)
    progress.line = 5
    progress.counts.update({"interaction.accepted": 3, "bad_lines": 2})
    file.keep_bad(progress, [(Line(2, "x"), "why"), (Line(4, "ÿ"), "because")])
    file.save(progress)
    file.keep_bad(Progress(), [(Line(6, "z"), "not counted")])
    return progress


def test_it_is_taken_up_where_it_was(tmp_path: Path, source: Path) -> None:
    file = kept(tmp_path, source)
    progress = interrupted(file)
    file.finish(complete=False)
    again = kept(tmp_path, source)
    assert again.load() == progress
    again.begin(again.load())
    again.finish(complete=True)
    assert again.bad_path is not None
    assert [json.loads(line) for line in again.bad_path.read_text().splitlines()] == [
        {"line": 2, "reason": "why", "text": "x"},
        {"line": 4, "reason": "because", "text": "ÿ"},
    ]


def test_a_complete_import_leaves_its_bad_lines_and_nothing_else(tmp_path: Path, source: Path) -> None:
    file = kept(tmp_path, source)
    interrupted(file)
    file.finish(complete=True)
    assert list((tmp_path / "state").iterdir()) == [file.bad_path]
    assert kept(tmp_path, source).load() == Progress()


def test_a_clean_import_leaves_nothing(tmp_path: Path, source: Path) -> None:
    file = kept(tmp_path, source)
    file.begin(file.load())
    file.finish(complete=True)
    assert list((tmp_path / "state").iterdir()) == []


def test_another_file_or_server_begins_anew(tmp_path: Path, source: Path) -> None:
    interrupted(kept(tmp_path, source))
    assert kept(tmp_path, source).load().line == 5
    assert kept(tmp_path, source, run="another server").load().line == 0
    status = source.stat()
    source.write_text("{}\n{}\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept(tmp_path, source).load().line == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"line": "x"}', '{"line": 1}'])
def test_progress_that_cannot_be_read_is_none(tmp_path: Path, source: Path, content: str) -> None:
    interrupted(kept(tmp_path, source))
    (path,) = (tmp_path / "state").glob("*.progress")
    path.write_text(content)
    assert kept(tmp_path, source).load() == Progress()


def test_a_folder_that_cannot_be_written(tmp_path: Path, source: Path) -> None:
    (tmp_path / "state").write_text("a file")
    file = kept(tmp_path, source)
    with pytest.raises(Misconfigured, match=r"cannot be written .*--state-dir"):
        file.begin(Progress())


def test_what_comes_from_a_pipe_has_no_progress(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "state", Path("-"), run="", bad_lines=None)
    file.begin(file.load())
    file.keep_bad(Progress(), [(Line(1, ""), "why")])
    file.finish(complete=False)
    assert not (tmp_path / "state").exists()
