"""The OpenAPI document tells the truth: schemathesis calls everything in it, and holds each answer against it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from signaling_edge import TOKEN, a_fake

from edge.signaling.openapi import document

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(_: Any, value: Any) -> bytes:
    return str(value).encode(errors="replace")


SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an edge in a thread of its own: schemathesis waits for its answers."""
    found: list[str] = []
    up, over = threading.Event(), threading.Event()

    async def serve(directory: Path) -> None:
        async with a_fake(directory) as (edge, _):
            found.append(edge.url)
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(tmp_path_factory.mktemp("edge")),))
    thread.start()
    try:
        assert up.wait(60)
        yield found[0]
    finally:
        over.set()
        thread.join(60)


def test_the_document_is_served_as_it_is(url: str) -> None:
    with urlopen(url + "/openapi.json") as response:
        assert json.load(response) == document()


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_as_documented(url: str, label: str, mode: str) -> None:
    operation = OPERATIONS[label]
    seen: set[int] = set()

    @seed(1)
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def hold(case: schemathesis.Case) -> None:
        response = case.call(base_url=url, headers={**TOKEN})
        seen.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    try:
        hold()
    except schemathesis.errors.InvalidSchema:
        assert mode == "negative"
    except BaseException as e:
        if type(e).__name__ in ("Unsatisfiable", "SkipTest", "Skipped") and mode == "negative":
            return  # nothing of it can be wrong
        raise
    assert seen
