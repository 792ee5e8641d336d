from __future__ import annotations

import importlib
import json
import logging
import pkgutil

import httpx
import pytest

import app
from app.api.http import problems
from app.api.http.problems import STATUSES, RequestError, for_error
from app.domain import errors
from app.domain.errors import (
    DeadlineExceededError,
    DomainError,
    InvalidInputError,
    OverloadedError,
    StoppingError,
    StorageUnavailableError,
    TemplateNotFoundError,
    VersionMismatchError,
    Violation,
)
from tests.api.http.conftest import Api, client_of
from tests.api.http.problem import problem_of

SECRET = "FATAL: password authentication failed for user app, SELECT * FROM templates"

SAMPLES: dict[type[DomainError], DomainError] = {
    InvalidInputError: InvalidInputError(Violation("name", "is odd"), Violation("body", "is odder")),
    TemplateNotFoundError: TemplateNotFoundError(7),
    VersionMismatchError: VersionMismatchError(7, 3),
    StorageUnavailableError: StorageUnavailableError(0.3),
    OverloadedError: OverloadedError(2.1),
    StoppingError: StoppingError(0.3),
    DeadlineExceededError: DeadlineExceededError(),
}


def _all_of(base: type[Exception]) -> set[type[Exception]]:
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if "proto" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    found = set(base.__subclasses__())
    return found.union(*(_all_of_loaded(cls) for cls in found))


def _all_of_loaded(base: type[Exception]) -> set[type[Exception]]:
    found = set(base.__subclasses__())
    return found.union(*(_all_of_loaded(cls) for cls in found))


def _declared_in(module: object, base: type[Exception]) -> set[type[Exception]]:
    return {
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and value.__module__ == module.__name__  # type: ignore[attr-defined]
    }


def test_every_error_of_domain_and_requests_anywhere_in_the_project_has_a_status_by_the_table() -> None:
    project = {cls for base in (DomainError, RequestError) for cls in _all_of(base) if cls.__module__.startswith("app")}
    assert project
    for cls in project:
        error = cls.__new__(cls)
        error.__dict__.update(violations=(), retry_after_s=1.0)
        response = for_error(error)  # type: ignore[arg-type]
        listed = next(base for base in cls.__mro__ if base in STATUSES)
        assert response.status_code == STATUSES[listed] != 500
        assert json.loads(bytes(response.body))["code"] == listed.code  # type: ignore[attr-defined]


def test_the_table_lists_every_declared_error_and_their_codes_differ() -> None:
    assert set(STATUSES) == _declared_in(errors, DomainError) | _declared_in(problems, RequestError)
    codes = [cls.code for cls in STATUSES]  # type: ignore[attr-defined]
    assert len(set(codes)) == len(codes)


def test_an_error_that_no_table_lists_is_a_bug_and_says_nothing() -> None:
    class OddError(DomainError): ...

    response = for_error(OddError(SECRET))
    assert response.status_code == 500
    assert SECRET not in bytes(response.body).decode()


@pytest.mark.parametrize("error", SAMPLES.values(), ids=lambda error: type(error).__name__)
async def test_what_a_read_raises_reaches_the_client_as_a_problem(api: Api, error: DomainError) -> None:
    error.__cause__ = OSError(SECRET)
    api.cache.error = error
    status = STATUSES[type(error)]
    # Not all of these are raised by reads: this is about the table.
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://app") as client:
        problem = problem_of(await client.get("/template-details?id=1"), status, error.code)
        head = await client.head("/template-details?id=1")
    assert problem["detail"] == str(error)
    assert (head.status_code, head.content) == (status, b"")


REQUESTS = [
    ("GET", "/template-details?id=1", None),
    ("PUT", "/template-details?id=1", {"name": "a", "body": "b"}),
    ("POST", "/template-details", {"name": "a", "body": "b"}),
    ("DELETE", "/template-details?id=1", None),
    ("GET", "/templates", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
@pytest.mark.parametrize(("retry_after_s", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (30.0, "30")])
async def test_an_unreachable_database_gets_503_that_says_when_to_try_again(
    api: Api, method: str, path: str, body: object, retry_after_s: float, header: str
) -> None:
    api.repository.error = api.cache.error = StorageUnavailableError(retry_after_s)
    response = await api.client.request(method, path, json=body)
    problem_of(response, 503, "storage_unavailable")
    assert response.headers["retry-after"] == header


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_bug_gets_a_bare_500_and_its_text_is_in_the_log_only(
    api: Api, method: str, path: str, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    api.repository.error = api.cache.error = ValueError(SECRET)
    with caplog.at_level(logging.ERROR):
        response = await api.client.request(method, path, json=body)
    problem = problem_of(response, 500, "internal")
    assert "errors" not in problem
    assert SECRET not in response.text
    assert caplog.text.count("request failed") == 1
    assert SECRET in caplog.text


async def test_a_bug_in_the_framework_gets_a_bare_500_too(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_scope: object, _receive: object, _send: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(api.app, "_app", broken)
    async with client_of(api.app) as client:
        problem_of(await client.get("/live"), 500, "internal")
    assert SECRET in caplog.text
