"""Findings as callers get them."""

from __future__ import annotations

from rankloop.v1 import stats_pb2 as pb
from server.health.finding import Finding, Severity

_SEVERITIES = {Severity.NOTE: pb.FINDING_SEVERITY_NOTE, Severity.WARNING: pb.FINDING_SEVERITY_WARNING}


def finding_message(finding: Finding) -> pb.Finding:
    """The message of a finding."""
    return pb.Finding(
        name=finding.name,
        severity=_SEVERITIES[finding.severity],
        count=finding.count,
        examined_count=finding.examined_count,
        examples=finding.examples,
        description=finding.description,
        advice=finding.advice,
    )
