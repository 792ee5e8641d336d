"""Every query of the dashboard, put through Grafana as its browser side would: GRAFANA_URL.

Exit status 0 when each shows both applications (those about Loom: Loom), and the stampede factor tells them apart.
"""

from __future__ import annotations

# ruff: noqa: T201, S310 - what it prints is its result; the address is the caller's
import base64
import json
import sys
import urllib.parse
import urllib.request
from typing import Any

LOGIN = {"Authorization": "Basic " + base64.b64encode(b"admin:admin").decode()}
BOTH = {"app", "app-unprotected"}
VARIABLES = {"$__range": "5m", "$__rate_interval": "20s", "$job": "|".join(sorted(BOTH))}


def get(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=LOGIN), timeout=10) as answer:
        return json.load(answer)


def main(grafana: str) -> int:
    board = get(f"{grafana}/api/dashboards/uid/singleflight")["dashboard"]
    if (board["time"], board["refresh"]) != ({"from": "now-5m", "to": "now"}, "5s"):
        return complain("the range or the refresh is not the agreed one")
    source = f"{grafana}/api/datasources/proxy/uid/prometheus/api/v1/query?"
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            result = get(source + urllib.parse.urlencode({"query": query}))["data"]["result"]
            series = {each["metric"]["job"]: float(each["value"][1]) for each in result}
            if set(series) != ({"loom"} if 'job="loom"' in query else BOTH):
                return complain(f"{panel['title']} shows {sorted(series)}: {query}")
            if panel["title"] == "Stampede factor":
                print(f"note: stampede factor {series}")
                if not 2 * series["app"] < series["app-unprotected"]:
                    return complain("the stampede factor does not tell them apart")
    return 0


def complain(why: str) -> int:
    print(why)
    return 1


sys.exit(main(sys.argv[1]))
