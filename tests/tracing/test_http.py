"""What a trace of an HTTP request holds, as a real receiver gets it."""

from __future__ import annotations

import asyncio

import pytest

from app.embedded.cluster import EmbeddedRedisCluster
from app.tracing_settings import TracingSettings
from tests.tracing.collector import Collector, Received
from tests.tracing.conftest import Start, parent, trace_of
from tests.tracing.crowd import ask_together, cancel_load, held

ROUTE = "/template-details"
GET = f"GET {ROUTE}"


async def test_a_miss_is_one_trace_from_the_request_through_redis_and_the_load_to_the_statement(
    start: Start, collector: Collector
) -> None:
    service = await start()
    await service.http.get(ROUTE, params={"id": 1})  # Redis gets to know the scripts
    await service.http.get(ROUTE, params={"id": 7}, headers=parent(7))
    await collector.until(lambda: len(collector.named(GET)) == 2)
    tree = [GET, ".flight", "..EVALSHA take", "..load", "...SELECT", "..EVALSHA put"]
    assert collector.tree(trace_of(7)) == tree
    root, flight, take, load, select, _ = sorted(collector.trace(trace_of(7)), key=_by_start)
    assert [span.kind for span in (root, flight, take, load, select)] == [
        "server", "internal", "client", "internal", "client",
    ]  # fmt: skip
    assert (
        root.attributes.items()
        >= {
            "http.request.method": "GET",
            "http.route": ROUTE,
            "http.response.status_code": 200,
            "cache.source": "origin",
        }.items()
    )
    assert flight.attributes == {"cache.key": "7"}
    assert flight.events == [("cache.lease", {"end": "won"})]
    assert take.attributes["db.query.text"] == "EVALSHA take template:1:{7} template:1:{7}:lease template:1:{7}:floor"
    assert (take.attributes["db.system.name"], select.attributes["db.system.name"]) == ("redis", "postgresql")
    assert "WHERE" not in select.attributes["db.query.text"]
    assert select.attributes["db.query.text"].startswith("SELECT t.id, t.name")
    assert not any(span.failed for span in (root, flight, take, load, select))


async def test_a_hit_is_the_requests_span_alone(start: Start, collector: Collector) -> None:
    service = await start()
    await service.http.get(ROUTE, params={"id": 8})
    await service.http.get(ROUTE, params={"id": 8}, headers=parent(8))
    await collector.until(lambda: collector.trace(trace_of(8)))
    (root,) = collector.trace(trace_of(8))
    assert (root.name, root.attributes["cache.source"]) == (GET, "l1")


async def test_a_callers_trace_is_continued_and_a_malformed_or_doubled_one_is_not(
    start: Start, collector: Collector
) -> None:
    service = await start()
    good = parent(9)["traceparent"]
    await service.http.get("/templates", headers={"traceparent": good, "tracestate": "vendor=1"})
    bad = [
        good.upper().replace("00-", "zz-", 1),
        good.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"{good}-more",
        "x" * 10_000,
        "",
    ]
    for value in bad:
        await service.http.get("/templates", headers={"traceparent": value})
    await service.http.get("/templates", headers=[("traceparent", good), ("traceparent", good)])
    await collector.until(lambda: len(collector.named("GET /templates")) == 2 + len(bad))
    (continued,) = [span for span in collector.named("GET /templates") if span.trace_id == trace_of(9)]
    assert (continued.parent_id, continued.proto.trace_state) == ("00000000000000aa", "vendor=1")
    others = [span for span in collector.named("GET /templates") if span is not continued]
    assert {span.parent_id for span in others} == {""}
    assert len({span.trace_id for span in others}) == len(others)


async def test_what_the_caller_does_not_sample_is_not_recorded_here_either(start: Start, collector: Collector) -> None:
    service = await start()
    await service.http.get(ROUTE, params={"id": 10}, headers={"traceparent": f"00-{10:032x}-{1:016x}-00"})
    await service.http.get(ROUTE, params={"id": 11})
    await collector.until(lambda: collector.named(GET))
    await collector.until(lambda: collector.named("load"))
    assert len(collector.named(GET)) == len(collector.named("load")) == 1
    assert collector.named("load")[0].attributes == {"cache.key": "11"}


async def test_who_shares_a_flight_has_a_link_to_it_and_none_of_its_spans(
    start: Start, collector: Collector, database_url: str
) -> None:
    service = await start()
    async with held(database_url):
        asked = await ask_together(service, 12, callers=[100, 101, 102])
    assert [(await each).status_code for each in asked] == [200] * 3
    await collector.until(lambda: len(collector.named(GET)) == 3 and collector.named("flight"))
    (flight,) = collector.named("flight")
    leader, *waiters = sorted(collector.named(GET), key=lambda span: span.attributes["cache.source"])
    assert [span.attributes["cache.source"] for span in (leader, *waiters)] == ["origin", "shared", "shared"]
    assert (flight.trace_id, flight.parent_id, leader.links) == (leader.trace_id, leader.span_id, [])
    for waiter in waiters:
        assert collector.trace(waiter.trace_id) == [waiter]
        assert waiter.links == [(flight.trace_id, flight.span_id)]


async def test_a_flight_that_fails_is_an_error_all_the_way_up_and_its_waiters_are_linked_to_it(
    start: Start, collector: Collector, database_url: str
) -> None:
    service = await start()
    async with held(database_url):
        asked = await ask_together(service, 13, callers=[103, 104])
        await cancel_load(database_url)
        assert [(await each).status_code for each in asked] == [503, 503]
    await collector.until(lambda: len(collector.named(GET)) == 2 and collector.named("flight"))
    (flight,) = collector.named("flight")
    failed = {span.name: span.attributes["error.type"] for span in collector.trace(flight.trace_id) if span.failed}
    assert failed == {
        "SELECT": "QueryCanceledError",
        "load": "StorageUnavailableError",
        "flight": "StorageUnavailableError",
        GET: "503",
    }
    assert collector.named("SELECT")[0].attributes["db.response.status_code"] == "57014"
    for root in collector.named(GET):
        assert root.failed
        assert root.links == ([] if root.trace_id == flight.trace_id else [(flight.trace_id, flight.span_id)])


async def test_a_clients_mistake_is_no_error_of_the_span_and_an_unknown_path_no_name(
    start: Start, collector: Collector
) -> None:
    service = await start()
    await service.http.get(ROUTE, params={"id": 0}, headers=parent(14))
    await service.http.request("PROPFIND", f"/{'tea' * 1000}", headers=parent(15))
    await collector.until(lambda: collector.trace(trace_of(14)) and collector.trace(trace_of(15)))
    (mistaken,), (unknown,) = collector.trace(trace_of(14)), collector.trace(trace_of(15))
    assert (mistaken.name, mistaken.failed, mistaken.attributes["http.response.status_code"]) == (GET, False, 400)
    assert (unknown.name, unknown.attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert "http.route" not in unknown.attributes
    assert len(unknown.attributes["url.path"]) == 256


async def test_no_stored_or_sent_value_is_in_any_span(start: Start, collector: Collector) -> None:
    service = await start()
    secret = {"name": "secret-name", "body": "secret-body"}
    await service.http.put(ROUTE, params={"id": 16}, json=secret, headers=parent(16))
    await service.http.get(ROUTE, params={"id": 16, "token": "secret-query"}, headers={"authorization": "secret-token"})
    await collector.until(lambda: collector.named(f"PUT {ROUTE}") and collector.named(GET))
    assert f"PUT {ROUTE}" in collector.tree(trace_of(16))
    assert ".WITH" in collector.tree(trace_of(16))
    assert ".EVALSHA invalidate" in collector.tree(trace_of(16))
    for span in collector.spans:
        assert b"secret" not in span.proto.SerializeToString(), span


async def test_probes_scrapes_and_the_background_make_no_traces(
    start: Start, collector: Collector, redis_cluster: EmbeddedRedisCluster
) -> None:
    service = await start(redis_url=redis_cluster.url())
    for path in ("/live", "/ready", "/metrics"):
        await service.http.get(path)
    await service.http.get(ROUTE, params={"id": 17}, headers=parent(17))
    await service.http.get("/ready")
    await service.http.get("/templates", headers=parent(18))
    await collector.until(lambda: collector.named("GET /templates"))
    assert {span.trace_id for span in collector.spans} == {trace_of(17), trace_of(18)}


async def test_a_clusters_nodes_are_named_by_the_spans_of_their_commands(
    start: Start, collector: Collector, redis_cluster: EmbeddedRedisCluster
) -> None:
    service = await start(redis_url=redis_cluster.url())
    for template_id in range(20, 28):
        await service.http.get(ROUTE, params={"id": template_id}, headers=parent(template_id))
    await collector.until(lambda: len(collector.named(GET)) == 8)
    takes = collector.named("EVALSHA take")
    assert {span.attributes["server.port"] for span in takes} <= {node.port for node in redis_cluster.nodes}
    assert len({span.attributes["server.port"] for span in takes}) > 1
    assert not {span.name for span in collector.spans} - {GET, "flight", "load", "SELECT", *_REDIS}


async def test_a_refresh_behind_a_stale_answer_is_in_the_trace_of_who_set_it_off(
    start: Start, collector: Collector
) -> None:
    service = await start(cache_ttl_s=0.05, cache_ttl_jitter=0, early_refresh_beta=0)
    await service.http.get(ROUTE, params={"id": 30})
    await asyncio.sleep(0.06)  # its life ends by the clock of its own entry
    answer = await service.http.get(ROUTE, params={"id": 30}, headers=parent(30))
    assert answer.headers["x-cache"] == "stale"
    await collector.until(lambda: "...SELECT" in collector.tree(trace_of(30)))
    root = next(span for span in collector.trace(trace_of(30)) if span.name == GET)
    assert root.attributes["cache.source"] == "stale"
    assert ("cache.stale", {"cause": "grace"}) in root.events


@pytest.mark.parametrize("sampler", ["always_off", "traceidratio", "parentbased_traceidratio"])
async def test_the_sampler_decides_which_requests_are_traced(start: Start, collector: Collector, sampler: str) -> None:
    none = TracingSettings.model_validate(
        {"exporter_otlp_endpoint": collector.grpc_url, "traces_sampler": sampler, "traces_sampler_arg": 0.0}
    )
    service = await start(none)
    for template_id in range(40, 45):
        await service.http.get(ROUTE, params={"id": template_id})
    if sampler == "parentbased_traceidratio":
        await service.http.get("/templates", headers=parent(45))
        await collector.until(lambda: collector.named("GET /templates"))
        assert {span.trace_id for span in collector.spans} == {trace_of(45)}
    else:
        assert "tracing_spans_total" in (await service.http.get("/metrics")).text
        assert not collector.spans


async def test_traces_go_by_http_where_that_is_asked_for_under_the_services_own_name(
    start: Start, collector: Collector
) -> None:
    service = await start(
        TracingSettings.model_validate(
            {
                "exporter_otlp_endpoint": collector.http_url,
                "exporter_otlp_protocol": "http/protobuf",
                "service_name": "templates-blue",
            }
        )
    )
    await service.http.get(ROUTE, params={"id": 50})
    await collector.until(lambda: collector.named(GET))
    (root,) = collector.named(GET)
    assert root.resource["service.name"] == "templates-blue"
    assert {"service.version", "service.instance.id"} < set(root.resource)


_REDIS = ("EVALSHA take", "EVALSHA put", "EVAL take", "EVAL put")


def _by_start(span: Received) -> int:
    return span.proto.start_time_unix_nano
