"""The reference of the gRPC API says of each kind of declaration what there is to say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.descriptors import compiled
from tests.docs import api

TEAS = """
syntax = "proto3";
package tea.v1;
import "google/protobuf/duration.proto";

// All about
// tea.
//
// And nothing else.
service Teas {
  // Until it is cold.
  rpc Watch(stream Wish) returns (stream Cup) { option idempotency_level = IDEMPOTENT; }
}

// A cup, or | a mug.
message Cup {
  // How warm.
  enum Warmth {
    // Not told.
    WARMTH_UNSPECIFIED = 0;
  }
  Warmth warmth = 1;
  optional google.protobuf.Duration left = 4;  // not this
}

message Wish {
  // By kind.
  map<string, Cup> cups = 1;
  repeated string names = 2;
  oneof vessel {
    // A pot.
    bool pot = 3;
    bool mug = 4;
  }
  oneof alone {
    bool cat = 5;
  }
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("proto")
    (folder / "teas.proto").write_text(TEAS)
    return api.reference(compiled(folder, [Path("teas.proto")]))


@pytest.mark.parametrize(
    "part",
    [
        "## Service `tea.v1.Teas`\n\nAll about tea.\n\nAnd nothing else.\n\n### Watch\n\n",
        "stream of [Wish](#wish) → stream of [Cup](#cup) (`IDEMPOTENT`)\n\nUntil it is cold.\n",
        "### Cup\n\nA cup, or | a mug.\n\nThe response of [Watch](#watch).\n\n| No. |",
        "| 1 | `warmth` | [Cup.Warmth](#cupwarmth) | How warm. |",
        "| 4 | `left` | optional `google.protobuf.Duration` |  |",
        "### Cup.Warmth\n\nHow warm.\n\n| No. | Value | Meaning |\n",
        "| 0 | `WARMTH_UNSPECIFIED` | Not told. |",
        "### Wish\n\nThe request of [Watch](#watch).",
        "| 1 | `cups` | map of `string` to [Cup](#cup) | By kind. |",
        "| 2 | `names` | repeated `string` |  |",
        "| 3 | `pot` | `bool` | A pot. Not together with `mug`. |",
        "| 4 | `mug` | `bool` | Not together with `pot`. |",
        "| 5 | `cat` | `bool` |  |",
    ],
)  # fmt: skip
def test_each_kind_of_declaration_is_told(page: str, part: str) -> None:
    assert part in page, page


def test_the_entries_of_a_map_and_comments_behind_a_field_are_not_on_the_page(page: str) -> None:
    assert "Entry" not in page
    assert "not this" not in page


def test_all_that_is_in_the_contract_is_explained() -> None:
    page = api.reference()
    assert [line for line in page.splitlines() if line.startswith("|") and re.search(r"\|\s*\|$", line)] == []
    headings = re.findall(r"^### .*$", page, re.MULTILINE)
    assert len(headings) > 20
    assert re.findall(r"^### .*\n\n(?:\||#)", page, re.MULTILINE) == []
