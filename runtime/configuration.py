"""The base of every room's settings: frozen, strict, and explained field by field."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of `rankloop.toml`. Fields are read once and never change; a docstring under each says what it is, in which unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
