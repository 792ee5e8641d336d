"""Every error that a call can end with, as clients decode it."""

from __future__ import annotations

import base64
import re
import urllib.parse
from types import ModuleType

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from app.api.grpc import errors as call_errors
from app.api.grpc.errors import CallError, RateLimitedError
from app.api.grpc.statuses import INTERNAL_TEXT, STATUSES, rpc_status, status_of
from app.domain import errors
from app.domain.errors import (
    DomainError,
    InvalidInputError,
    OverloadedError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
    Violation,
)

CLIENTS_METADATA_BYTES = 8 << 10
"""What clients of grpc core take of trailing metadata by default; past it they fail calls at random."""
KINDS: tuple[type[Message], ...] = (BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo)


def _declared(module: ModuleType, base: type[Exception]) -> set[type[Exception]]:
    return {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    }


def details(status: Status) -> list[Message]:
    """What the status carries, unpacked."""
    found = []
    for packed in status.details:
        [kind] = [kind for kind in KINDS if packed.Is(kind.DESCRIPTOR)]
        message = kind()
        packed.Unpack(message)
        found.append(message)
    return found


def _named(status: Status, kind: type[Message]) -> list[Message]:
    return [detail for detail in details(status) if isinstance(detail, kind)]


def instance(cls: type[Exception]) -> Exception:
    """One of the class, with whatever its constructor asks for."""
    for arguments in [(Violation("name", "must not be blank"),), (), (7,), (7, 3), (1.5,), ("template.v1.X",)]:
        try:
            made = cls(*arguments)
            str(made)
            rpc_status(made)
        except (TypeError, AttributeError, ValueError):
            continue
        return made
    raise AssertionError(f"no way was found to make {cls}")


def test_the_table_lists_every_error_of_the_domain_and_of_calls() -> None:
    assert set(STATUSES) == _declared(errors, DomainError) | _declared(call_errors, CallError)


@pytest.mark.parametrize("cls", STATUSES, ids=lambda cls: cls.__name__)
def test_every_error_tells_its_status_its_text_and_a_reason_that_is_its_code(cls: type[Exception]) -> None:
    error = instance(cls)
    status = rpc_status(error)
    assert status.code == STATUSES[cls].value[0]  # type: ignore[index]
    assert status.message == str(error)
    [info] = _named(status, ErrorInfo)
    assert isinstance(info, ErrorInfo)
    assert info.reason == vars(cls)["code"].upper()
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]", info.reason)
    assert info.domain == "template.v1"


@pytest.mark.parametrize("cls", STATUSES, ids=lambda cls: cls.__name__)
def test_what_can_be_tried_again_says_when(cls: type[Exception]) -> None:
    again = STATUSES[cls] in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}  # type: ignore[index]
    assert len(_named(rpc_status(instance(cls)), RetryInfo)) == again


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(StorageUnavailableError(2.5), 2.5), (OverloadedError(0), 0.0), (RateLimitedError(0.25), 0.25)],
)
def test_when_to_try_again_is_what_the_error_says(error: Exception, seconds: float) -> None:
    [retry] = _named(rpc_status(error), RetryInfo)
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == seconds


def test_bad_input_names_every_field() -> None:
    error = InvalidInputError(Violation("name", "must not be blank"), Violation("body", "must not contain U+0000"))
    [request] = _named(rpc_status(error), BadRequest)
    assert isinstance(request, BadRequest)
    assert [(each.field, each.description) for each in request.field_violations] == [
        ("name", "must not be blank"),
        ("body", "must not contain U+0000"),
    ]


def test_a_missing_template_is_named() -> None:
    status = rpc_status(TemplateNotFoundError(7))
    [resource] = _named(status, ResourceInfo)
    assert isinstance(resource, ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("template.v1.Template", "templates/7")
    [info] = _named(status, ErrorInfo)
    assert isinstance(info, ErrorInfo)
    assert info.metadata == {"template_id": "7"}


def test_a_version_that_is_not_the_expected_one_is_a_failed_precondition_of_that_template() -> None:
    status = rpc_status(VersionMismatchError(7, 3))
    [failure] = _named(status, PreconditionFailure)
    assert isinstance(failure, PreconditionFailure)
    [violation] = failure.violations
    assert (violation.type, violation.subject) == ("VERSION", "templates/7")
    [info] = _named(status, ErrorInfo)
    assert isinstance(info, ErrorInfo)
    assert info.metadata == {"template_id": "7", "current_version": "3"}


def test_a_subclass_has_the_status_of_its_base() -> None:
    class PoolExhaustedError(StorageUnavailableError): ...

    assert status_of(PoolExhaustedError()) is grpc.StatusCode.UNAVAILABLE
    assert _named(rpc_status(PoolExhaustedError()), RetryInfo)


@pytest.mark.parametrize("error", [DomainError("odd"), RuntimeError("SELECT secret"), KeyError("secret")])
def test_an_error_that_is_not_listed_is_internal_and_nothing_of_it_is_told(error: Exception) -> None:
    status = rpc_status(error)
    assert (status.code, status.message) == (13, INTERNAL_TEXT)
    assert details(status) == [ErrorInfo(reason="INTERNAL", domain="template.v1")]


@pytest.mark.parametrize("unit", ["x", "é", "\N{GRINNING FACE}", "\n", "\ud800"])
def test_a_thousand_long_violations_fit_into_what_clients_take(unit: str) -> None:
    error = InvalidInputError(*(Violation(unit * 5_000, unit * 5_000) for _ in range(1_000)))
    status = rpc_status(error)
    text = len(urllib.parse.quote(status.message, safe=""))
    assert text + len(base64.b64encode(status.SerializeToString())) < CLIENTS_METADATA_BYTES - 1_000
    [request] = _named(status, BadRequest)
    assert isinstance(request, BadRequest)
    assert all(each.field.endswith("...") for each in request.field_violations)
