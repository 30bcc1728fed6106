"""An ICE client, as far as an agent with ICE lite sees it: its checks and its answers."""

from __future__ import annotations

from rtc.ice.lite import IceLite, Path
from wire import address, stun

HOME = Path(b"edge", address.pack("192.0.2.1", 40000))
ELSEWHERE = Path(b"edge", address.pack("2001:db8::1", 40000))
OTHER_EDGE = Path(b"other", HOME.address)


def request(password: str, *, nominate: bool = False) -> stun.Message:
    message = stun.parse(stun.binding_request(b"s:c", password.encode(), tie_breaker=1, nominate=nominate))
    assert message is not None
    return message


def check(ice: IceLite, path: Path, now: float, *, nominate: bool = False) -> bytes | None:
    return ice.check(request(ice.password, nominate=nominate), path, now)


def answered(ice: IceLite, probe: bytes | None) -> stun.Message:
    """What a client says to our check."""
    asked = stun.parse(probe or b"")
    assert asked is not None
    response = stun.parse(stun.binding_response(asked, HOME.address, ice.remote[1].encode()))
    assert response is not None
    return response


def prove(ice: IceLite, path: Path, now: float) -> bool:
    """The client answers our check of ``path``."""
    return ice.proved_by(answered(ice, ice.probe(path, now)), path, now)
