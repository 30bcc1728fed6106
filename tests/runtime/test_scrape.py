"""Scrapes: they cost media nothing, however many and however rude they are."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from waiting import until

from runtime import metrics
from runtime.errors import ConfigError
from runtime.scrape import Scrapes, Unavailable


class Slow(Collector):
    """Values that take 5 ms of the interpreter's time."""

    def __init__(self) -> None:
        self.read = 0
        self.spent_s = 0.0
        self.fails = False

    def collect(self) -> Iterator[GaugeMetricFamily]:
        began = time.thread_time()
        if self.fails:
            raise RuntimeError("ours")
        while time.thread_time() < began + 0.005:
            pass
        self.read += 1
        self.spent_s += time.thread_time() - began
        yield GaugeMetricFamily("read", "How often.", value=self.read)


def never(_: Mapping[str, str]) -> bytes:
    raise Unavailable("it hangs")


class Place:
    def __init__(self) -> None:
        self.slow = Slow()
        registry = CollectorRegistry()
        registry.register(self.slow)
        self.slow.read = 0
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = int(sock.getsockname()[1])
        pages = {"/fields": lambda query: json.dumps(query).encode(), "/never": never}
        Scrapes("127.0.0.1", self.port, registry, pages)

    def scrape(self, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@pytest.fixture(scope="module")
def place() -> Place:
    return Place()


def test_values_are_of_the_moment(place: Place) -> None:
    for _ in range(3):
        status, text = place.scrape()
        (family,) = text_string_to_metric_families(text)
        assert (status, family.samples[0].value) == (200, place.slow.read)


def test_what_is_not_asked_for_is_not_made(place: Place) -> None:
    before = place.slow.read
    assert place.scrape("/other")[0] == 404
    assert place.scrape(method="POST")[0] == 405
    assert place.slow.read == before
    assert place.scrape(method="HEAD") == (200, "")


def test_an_answer_says_what_time_it_is_here(place: Place) -> None:
    began = int(time.time())
    with place.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        head = BytesParser().parsebytes(answer.read().partition(b"\r\n")[2])
    assert began <= parsedate_to_datetime(head["Date"]).timestamp() <= time.time()


def test_who_says_nothing_or_too_much_is_given_up(place: Place) -> None:
    with place.connect() as silent, place.connect() as long_winded:
        long_winded.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 3000)
        assert place.scrape()[0] == 200
        assert silent.recv(1) == b""


def test_a_flood_of_scrapes_takes_a_small_share_of_the_time(place: Place) -> None:
    """Each takes 5 ms here; without a bound a flood takes all that there is."""
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            try:
                place.scrape()
            except OSError:
                time.sleep(0.01)

    floods = [threading.Thread(target=flood) for _ in range(8)]
    read, spent_s, began = place.slow.read, place.slow.spent_s, time.monotonic()
    for thread in floods:
        thread.start()
    until(lambda: place.slow.read >= read + 20)
    share = (place.slow.spent_s - spent_s) / (time.monotonic() - began)
    over.set()
    for thread in floods:
        thread.join()
    assert share < 0.2


def test_a_collector_that_fails_is_an_error_and_not_the_end(place: Place) -> None:
    place.slow.fails = True
    assert place.scrape()[0] == 500
    place.slow.fails = False
    assert place.scrape()[0] == 200


def test_an_address_that_is_taken_is_said(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"some\.key: 127\.0\.0\.1 port"):
        metrics.serve("some.key", "127.0.0.1", place.port)


def test_a_page_beside_the_metrics_has_the_fields_of_its_query() -> None:
    place = Place()
    assert place.scrape("/fields?model=a%20b&region=&x=1") == (200, '{"model": "a b", "x": "1"}')
    assert place.scrape("/fields?" + "&".join(f"f{i}=1" for i in range(100))) == (200, "{}")
    assert place.scrape("/field")[0] == 404
    assert "read" in place.scrape()[1]


def test_a_page_that_has_nothing_good_to_say_says_it() -> None:
    assert Place().scrape("/never") == (503, '{"error": "it hangs"}')
