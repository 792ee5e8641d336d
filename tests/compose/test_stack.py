from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from app.compose.errors import ComposeError
from app.compose.stack import ComposeStack
from tests.compose.conftest import FakeDocker


def inspected(ports: Mapping[str, int | None]) -> str:
    """What `docker inspect` says of containers with these host ports; one without a port does not run."""
    return json.dumps(
        [
            {
                "Id": name,
                "State": {"Running": port is not None},
                "NetworkSettings": {"Ports": {"8080/tcp": [{"HostPort": str(port)}]} if port else {}},
            }
            for name, port in ports.items()
        ]
    )


def started(docker: FakeDocker, settings: Mapping[str, str] | None = None) -> ComposeStack:
    """Two apps: container b is the first, container a the second."""
    stack = ComposeStack(apps=2, settings=settings or {})
    docker.answer(["ps", "app"], "a\nb")
    docker.answer(["ps", "redis"], "r")
    docker.answer(["ps", "postgres"], "p")
    docker.answer(["inspect"], inspected({"a": stack.address(1)[1], "b": stack.address(0)[1]}))
    stack.up()
    return stack


def test_it_builds_scales_and_waits_in_a_project_of_its_own(docker: FakeDocker) -> None:
    started(docker)
    [up] = docker.asked("compose", "up")
    assert {"--detach", "--build", "--wait", "app=2"} <= set(up.words)
    assert up.words[-1] == "app", "what it does not need is not started"


def test_settings_reach_the_app_as_they_are_and_are_not_taken_from_the_shell(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_MODE", "none")
    started(docker, {"APP_CACHE_KEY_PREFIX": "a$b", "APP_LEASE_S": "2"})
    app = json.loads(docker.asked("compose", "up")[0].given)["services"]["app"]
    assert app["environment"] == {"APP_CACHE_KEY_PREFIX": "a$$b", "APP_LEASE_S": "2"}
    assert app["restart"] == "no"


def test_an_app_is_known_by_its_port_which_a_restart_may_deal_out_anew(docker: FakeDocker) -> None:
    stack = started(docker)
    stack.kill(0)
    assert docker.asked("kill", "b")
    docker.answer(["inspect"], inspected({"a": None, "b": None}))
    ready: list[int] = []
    stack._wait_ready = lambda number, deadline: ready.append(number)  # type: ignore[method-assign]

    docker.answer(["inspect", "a"], inspected({"a": stack.address(0)[1], "b": stack.address(1)[1]}))
    stack.restart([0, 1])
    assert docker.asked("start", "a", "b")
    assert ready == [0, 1]
    stack.kill(0)
    assert docker.asked("kill", "a")[-1].words[-1] == "a"


def test_an_app_that_does_not_start_is_quoted(docker: FakeDocker) -> None:
    stack = ComposeStack(apps=1, settings={"APP_CACHE_TTL_S": "-1"})
    docker.answer(["up"], errors="container app-1 exited (2)", status=1)
    docker.answer(["logs"], "APP_CACHE_TTL_S must be greater than 0")
    with pytest.raises(ComposeError) as raised:
        stack.up()
    assert str(raised.value) == (
        "docker compose up failed: container app-1 exited (2); the app said: APP_CACHE_TTL_S must be greater than 0"
    )


def test_taking_it_down_lets_what_is_frozen_go_on_and_leaves_no_volume_and_no_image(docker: FakeDocker) -> None:
    stack = started(docker)
    stack.redis.suspend()
    stack.down()
    verbs = [[word for word in call.words if word in ("pause", "unpause", "down", "rm")] for call in docker.asked()]
    assert [verb[0] for verb in verbs if verb] == ["pause", "unpause", "down", "rm"]
    assert {"--volumes", "--remove-orphans"} <= set(docker.asked("down")[0].words)
    assert docker.asked("image", "rm")[0].words[-1] == f"{stack.project}-app"


def test_what_cannot_be_removed_is_named_with_the_command_for_it(docker: FakeDocker) -> None:
    stack = started(docker)
    docker.answer(["down"], errors="network has active endpoints", status=1)
    with pytest.raises(ComposeError, match=f"docker compose -p {stack.project} down -v$"):
        stack.down()


def test_a_server_is_back_when_its_own_probe_says_so(docker: FakeDocker) -> None:
    stack = started(docker)
    stack.redis.kill()
    stack.redis.start()
    assert docker.asked("exec", "r", "redis-cli", "ping")
    order = [call.words[0] for call in docker.asked("r") if call.words[0] in ("kill", "start", "exec")]
    assert order == ["kill", "start", "exec"]
