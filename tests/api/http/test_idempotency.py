from __future__ import annotations

import pytest

from app.domain.errors import RequestIdReusedError
from tests.api.http.conftest import Api
from tests.api.http.problem import problem_of

BODY = {"name": "n", "body": "b"}
AT = "/template-details?id=1"


async def test_a_post_sent_again_makes_one_template_and_is_answered_alike(api: Api) -> None:
    before = len(api.repository.templates)
    keyed = {"Idempotency-Key": "a key"}
    first, second = [await api.client.post("/template-details", json=BODY, headers=keyed) for _ in range(2)]
    assert (first.status_code, first.content, first.headers["location"]) == (
        second.status_code,
        second.content,
        second.headers["location"],
    )
    assert first.status_code == 201
    assert len(api.repository.templates) == before + 1


async def test_a_put_and_a_delete_sent_again_are_done_once(api: Api) -> None:
    for _ in range(2):
        put = await api.client.put(AT, json=BODY, headers={"Idempotency-Key": "put", "If-Match": '"1-3"'})
        assert (put.status_code, put.headers["etag"]) == (200, '"1-4"')
    for _ in range(2):
        assert (await api.client.delete(AT, headers={"Idempotency-Key": "delete"})).status_code == 204


async def test_a_key_means_the_same_with_and_without_quotes(api: Api) -> None:
    quoted = await api.client.post("/template-details", json=BODY, headers={"Idempotency-Key": '"key"'})
    bare = await api.client.post("/template-details", json=BODY, headers={"Idempotency-Key": "key"})
    assert quoted.content == bare.content


async def test_a_key_of_another_request_gets_409(api: Api) -> None:
    api.repository.error = RequestIdReusedError("key")
    for method in ("POST", "PUT", "DELETE"):
        path = "/template-details" if method == "POST" else AT
        json = None if method == "DELETE" else BODY
        answer = await api.client.request(method, path, json=json, headers={"Idempotency-Key": "key"})
        problem_of(answer, 409, "request_id_reused")


@pytest.mark.parametrize("key", ["", '""', "x" * 129, "tab\tbed", "\x7f", "é".encode("latin-1")])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_key_that_breaks_its_rule_gets_400_and_writes_nothing(api: Api, method: str, key: str | bytes) -> None:
    path = "/template-details" if method == "POST" else AT
    json = None if method == "DELETE" else BODY
    raw = key if isinstance(key, bytes) else key.encode()
    answer = await api.client.request(method, path, json=json, headers=[(b"Idempotency-Key", raw)])
    text = problem_of(answer, 400, "malformed_request")["detail"]
    assert text == "Idempotency-Key must have 1 to 128 printable ASCII characters, best a UUID"
    assert api.cache.writes == []


async def test_two_keys_are_one_too_many(api: Api) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await api.client.post("/template-details", json=BODY, headers=headers)
    assert problem_of(answer, 400, "malformed_request")["detail"] == "Idempotency-Key is given 2 times; give it once"
