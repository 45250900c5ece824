"""Reading files line by line: plain, gzipped, broken, with lines of any length."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from scripts.importing.lines import MAX_LINE_BYTES, LineFile, UnreadableFile, decoded

LINES = [b"one", b"", b"t\xc3\xb6", b"last without an end"]


def read(path: Path) -> list[tuple[int, bytes]]:
    with LineFile(path) as lines:
        return list(lines)


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_are_numbered_from_1(tmp_path: Path, compress: type[bytes], end: bytes) -> None:
    path = tmp_path / "lines"  # gzip is known by its first bytes, not by the name
    path.write_bytes(compress(end.join(LINES)))
    assert read(path) == [(1, b"one"), (2, b""), (3, b"t\xc3\xb6"), (4, b"last without an end")]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert read(tmp_path / "empty") == []


def test_a_line_that_is_too_long_costs_no_memory_and_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(b"short\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nafter\n"))
    (_, short), (_, long), (number, after) = read(path)
    assert (short, number, after) == (b"short", 3, b"after")
    assert len(long) == MAX_LINE_BYTES + 1
    text, fault = decoded(2, long)
    assert "longer than 4,194,304 bytes" in fault
    assert len(text) == 1000


def test_a_line_of_exactly_the_longest_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"x" * (MAX_LINE_BYTES) + b"\nafter\n")
    assert [(number, len(line)) for number, line in read(path)] == [(1, MAX_LINE_BYTES), (2, 5)]


def test_gzip_that_breaks_off_is_named_with_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"\n".join(b"%d" % number for number in range(10_000)))[:-2000])
    seen: list[tuple[int, bytes]] = []
    with LineFile(path) as lines, pytest.raises(UnreadableFile, match=r"cut\.gz is damaged behind line \d+"):
        seen.extend(lines)
    assert seen
    assert all(line == b"%d" % (number - 1) for number, line in seen)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableFile, match="cannot be read"), LineFile(tmp_path / name):
        pass


def test_a_line_that_is_not_utf_8_is_shown_as_far_as_it_can_be() -> None:
    assert decoded(1, b"a\xffb") == ("a\ufffdb", "the line is not UTF-8 (byte 1)")
