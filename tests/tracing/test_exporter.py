"""The way of spans to an endpoint: what is sent, what is dropped, and what keeps a service from starting."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from collector import a_collector
from opentelemetry.semconv._incubating.attributes import (
    cloud_attributes,
    deployment_attributes,
    error_attributes,
    gen_ai_attributes,
    host_attributes,
    http_attributes,
    server_attributes,
    service_attributes,
    url_attributes,
)
from pydantic import ValidationError
from waiting import until

from runtime.config import Tracing
from runtime.errors import ConfigError
from runtime.tracing import export
from runtime.tracing.context import Context
from runtime.tracing.export import MOST_WAITING, Exporter, check, tracing
from runtime.tracing.shapes import REQUEST, SHAPES
from runtime.tracing.spans import Span


def counted(exporter: Exporter) -> dict[str, int]:
    (family,) = exporter.counts.collect()
    return {sample.labels["outcome"]: int(sample.value) for sample in family.samples}


def a_span(exporter: Exporter) -> Span:
    return Span(exporter, REQUEST, Context(7, 9, True, "rojo=1"), 5, what="POST /calls", remote=True)


def test_spans_are_sent_as_they_are() -> None:
    with a_collector() as collector:
        config = Tracing(endpoint=collector.url, attributes={"service.instance.id": "mine"})
        tracer, exporter = tracing(config, "firsthop-test", "one", region="here", zone="b")
        assert tracer.sink is exporter
        span = a_span(exporter)
        span.put({"http.route": "/calls", "a.count": 3, "a.share": 0.5, "a.fact": True})
        span.event("tried", {"which": 1})
        span.fail("full")
        span.end(span.began + 1.5)
        exporter.close()
    (found,) = collector.spans
    assert (found.name, found.kind, found.error) == ("POST /calls", "server", "full")
    assert (int(found.trace, 16), int(found.id, 16), int(found.parent, 16), found.state) == (7, 9, 5, "rojo=1")
    assert found.ended - found.began == pytest.approx(1.5e9, abs=1000)
    values = {"http.route": "/calls", "error.type": "full"}
    assert found.attributes.items() >= values.items()
    assert found.events.keys() == {"tried"}
    assert found.about["service.name"] == "firsthop-test"
    assert found.about["service.instance.id"] == "mine"
    assert (found.about["cloud.region"], found.about["cloud.availability_zone"]) == ("here", "b")
    assert counted(exporter) == {"sent": 1, "not_taken": 0, "queue_full": 0}


def test_a_span_that_cannot_be_sent_costs_its_batch_alone() -> None:
    with a_collector() as collector:
        exporter = Exporter(Tracing(endpoint=collector.url), {"service.version": "1"})
        bad = a_span(exporter)
        bad.began = math.nan
        bad.end()
        until(lambda: counted(exporter)["not_taken"] == 1)
        a_span(exporter).end()
        until(lambda: counted(exporter)["sent"] == 1)
        exporter.close()
    assert len(collector.spans) == 1


def test_what_an_endpoint_refuses_is_counted() -> None:
    with a_collector() as collector:
        collector.status = 400
        exporter = Exporter(Tracing(endpoint=collector.url), {"service.version": "1"})
        a_span(exporter).end()
        until(lambda: counted(exporter)["not_taken"] == 1)
        exporter.close()
    assert collector.spans == []


def test_while_an_endpoint_is_away_spans_wait_up_to_a_bound_and_nobody_else_does() -> None:
    waits = threading.Event()
    with a_collector() as collector:
        collector.hold = waits
        exporter = Exporter(Tracing(endpoint=collector.url, timeout_s=60), {"service.version": "1"})
        try:
            a_span(exporter).end()
            until(lambda: collector.batches == 1)
            for _ in range(MOST_WAITING + 10):
                a_span(exporter).end()
            assert counted(exporter)["queue_full"] == 10
        finally:
            waits.set()
        until(lambda: counted(exporter)["sent"] == MOST_WAITING + 1)
        exporter.close()


def test_without_an_endpoint_nothing_runs_and_nothing_is_imported() -> None:
    script = """
import sys, threading
from runtime.config import Tracing
from runtime.tracing.export import check, tracing
from runtime.tracing.shapes import REQUEST
import edge.signaling.__main__, transceiver.process
check(Tracing())
tracer, exporter = tracing(Tracing(), "firsthop-test", "one")
assert tracer.sink is None
assert not tracer.request(REQUEST, "POST /", None)
exporter.close()
assert threading.active_count() == 1, threading.enumerate()
print([name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_missing_package_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PACKAGES", ("opentelemetry.sdk", "no_such_package.at_all"))
    with pytest.raises(
        ConfigError, match=r"tracing.endpoint: no_such_package.at_all .*pip install 'firsthop\[tracing\]'"
    ):
        check(Tracing(endpoint="http://127.0.0.1:4318/v1/traces"))
    check(Tracing())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("token", "line 1"),
        ("# fine\nname: value\n: value\n", "line 3"),
        ("a name: value", "line 1"),
        ("name: sécret", "line 1"),
        ("".join(f"h{i}: v\n" for i in range(17)), "line 17"),
    ],
)
def test_headers_that_are_none_are_refused_without_being_shown(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "headers"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why) as e:
        check(Tracing(endpoint="http://127.0.0.1:4318/", headers_file=path))
    assert "value" not in str(e.value).replace("`name: value`", "")
    with pytest.raises(ConfigError, match="No such file"):
        check(Tracing(endpoint="http://127.0.0.1:4318/", headers_file=tmp_path / "none"))


def test_attributes_may_be_tables() -> None:
    nested = Tracing.model_validate({"attributes": {"deployment": {"environment": {"name": "test"}}, "team": "voice"}})
    assert nested.attributes == {"deployment.environment.name": "test", "team": "voice"}
    for wrong in ({"Bad Name": "x"}, {"a": 1}, {"a": {"b": ["c"]}}, {"a": "x" * 257}):
        with pytest.raises(ValidationError):
            Tracing.model_validate({"attributes": wrong})


@pytest.mark.parametrize(
    "endpoint", ["localhost:4318", "grpc://collector:4317", "http://", "http://a:0/", "http://a b/"]
)
def test_an_endpoint_is_a_url(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        Tracing(endpoint=endpoint)


def test_names_of_attributes_are_those_of_the_conventions_or_ours() -> None:
    conventions = (
        *(gen_ai_attributes, http_attributes, url_attributes, server_attributes, error_attributes),
        *(service_attributes, host_attributes, cloud_attributes, deployment_attributes),
    )
    known = {value for module in conventions for value in vars(module).values() if isinstance(value, str)}
    used = {name for shape in SHAPES for name in shape.attributes}
    assert len(used) > 40
    assert {name for name in used if not name.startswith("firsthop.")} <= known
    assert {"service.namespace", "service.name", "service.instance.id", "service.version", "host.name"} <= known
    assert {"cloud.region", "cloud.availability_zone"} <= known
