"""The rule for pictures in an item: data URLs, and where the configuration allows them, https URLs of public hosts.
Pure.

Nothing here fetches pictures, but an agent's service may, from inside a network that the caller is not in. So a URL
never leads to a file, nor to a host that is not public by its name. The service must check what a public name resolves
to.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from transceiver.realtime.config import InvalidRequest

__all__ = ["Schemes", "check"]

Schemes = Literal["data", "https"]

_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,40}(;[a-z0-9=._-]{1,40}){0,4},", re.IGNORECASE)
_HOST = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_PRIVATE = ("local", "localhost", "internal", "intranet", "lan", "home", "corp", "arpa", "onion", "test", "invalid")
_MOST_URL = 2048


def check(url: str, param: str, schemes: Schemes = "data") -> None:
    """Raises InvalidRequest, naming ``param``, for a URL that is not taken."""
    if _DATA.match(url):
        return
    if schemes == "data":
        raise InvalidRequest("Pictures are taken as data URLs: 'data:image/...'.", "invalid_value", param)
    if not _is_public(url):
        raise InvalidRequest("Pictures are taken as data URLs, or by https from public hosts.", "invalid_value", param)


def _is_public(url: str) -> bool:
    if len(url) > _MOST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme != "https" or "@" in parts.netloc or port not in (None, 443):
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return bool(_HOST.fullmatch(host)) and host.lower().rpartition(".")[2] not in _PRIVATE
