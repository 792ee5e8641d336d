from __future__ import annotations

import grpc

from app.api.grpc.statuses import STATUSES, status_of
from app.domain import errors
from app.domain.errors import DomainError, StorageUnavailableError


def _subclasses(cls: type[DomainError]) -> set[type[DomainError]]:
    found = set(cls.__subclasses__())
    return found.union(*(_subclasses(sub) for sub in found))


def test_every_domain_error_has_a_status_of_its_own_or_of_its_base() -> None:
    for error in _subclasses(DomainError):
        assert status_of(error.__new__(error)) is not grpc.StatusCode.INTERNAL, error


def test_the_table_lists_every_error_of_the_domain_and_no_status_twice() -> None:
    declared = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, DomainError) and value is not DomainError
    }
    assert set(STATUSES) == declared
    assert len(set(STATUSES.values())) == len(STATUSES)


def test_a_subclass_has_the_status_of_its_base() -> None:
    class PoolExhaustedError(StorageUnavailableError): ...

    assert status_of(PoolExhaustedError()) is grpc.StatusCode.UNAVAILABLE


def test_an_error_that_is_not_listed_is_internal() -> None:
    assert status_of(DomainError("odd")) is grpc.StatusCode.INTERNAL
