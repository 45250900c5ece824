"""The table of `rankloop bench export`."""

from __future__ import annotations

from benchmarks.export import FORMATS, MOMENTS, Exported, rows

MEBIBYTE = 2**20


def exported(events: int, kind: str, form: str) -> Exported:
    return Exported(
        events=events,
        kind=kind,
        form=form,
        records=events // 2,
        seconds=10.0,
        driver_seconds=2.0,
        exporter_peak_bytes=(100 + 5 * FORMATS.index(form)) * MEBIBYTE * (2 if events > 1000 else 1),
        server_peak_bytes=200 * MEBIBYTE,
    )


def test_speed_is_that_of_the_largest_and_memory_the_most_of_all_forms() -> None:
    found = rows([exported(events, kind, form) for events in (1000, 40_000) for kind in MOMENTS for form in FORMATS])
    assert len(found) == 2 + len(MOMENTS) * len(FORMATS) + 2 * len(MOMENTS)
    # 20,000 records in 10 s; the driver read them in 2 s.
    assert "| 20,000 slates as csv, a second | – | 2,000, 0.20 × | the driver alone: 10,000 |" in found
    most = 100 + 5 * (len(FORMATS) - 1)
    what = "peak memory of the exporter, slates, at 40,000 events, the most of all forms"
    assert f"| {what} | flat | {2 * most} MiB, 2.00 × | at 1,000 events: {most} MiB |" in found
    assert any("peak memory of the server" in row and "200 MiB, 1.00 ×" in row for row in found)


def test_of_one_size_nothing_is_said_of_growth() -> None:
    assert not any("peak" in row for row in rows([exported(1000, kind, form) for kind in MOMENTS for form in FORMATS]))
