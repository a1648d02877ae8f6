"""The types of the settings' fields: a check that names the variable, and what texts from an environment become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo
from pydantic_core import PydanticKnownError
from pydantic_settings import NoDecode

from coordinator.streams.setting_checks import (
    check_host,
    check_moment,
    check_name,
    check_subjects,
    http_host,
    networks_of,
)


def held_by(check: Callable[[str, Any], object], *, may_be_empty: bool = False) -> AfterValidator:
    """A field's validator: `check(variable, value)`, which raises OperatorError naming the variable."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        plain = revealed(value)
        if plain or not may_be_empty:
            check(str(info.field_name).upper(), plain)
        return value

    return AfterValidator(validate)


def revealed(value: Any) -> Any:
    """`value`, and of a secret what it hides."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _split(value: Any) -> Any:
    """The parts of a comma list; what is no text is left to the type."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _plain(kind: Literal["int_parsing", "float_parsing"]) -> BeforeValidator:
    """Refuses a text that is a number to the library and not to people: `604_800`, digits of another script."""

    def validate(value: Any) -> Any:
        if isinstance(value, str) and ("_" in value or not value.isascii()):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(validate)


Whole = Annotated[int, _plain("int_parsing")]
Number = Annotated[float, _plain("float_parsing")]
Moment = Annotated[Whole, held_by(check_moment)]
"""Milliseconds since 1970."""
Host = Annotated[str, held_by(check_host)]
Name = Annotated[str, held_by(check_name)]
Networks = Annotated[str, held_by(networks_of)]
SecretUrl = Annotated[SecretStr, held_by(http_host, may_be_empty=True)]
"""An http or https URL that may hold a key."""
Subjects = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), held_by(check_subjects)]
