"""The directory's store in Redis, for clusters of several hosts.

An entry is a key with a time to live. Beside it stands one sorted set for each kind, of names by when they were put
last, so that a snapshot finds them whatever else is in that Redis. All times are of Redis's own clock. Everything is
done by short scripts: each is one round trip, and what it does happens at once or not at all. A snapshot reads a page
in each, so that Redis never stands still for long.

To read ten thousand entries costs Redis 80 ms. So who has read them leaves them as one value, compressed, for others
who would read them the next moment: that costs it 3 ms, however many edges there are.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from runtime.directory.entries import HEAD_BYTES, pack, unpack
from runtime.directory.store import (
    MAX_EDGES,
    MAX_ENTRY_BYTES,
    MAX_TRANSCEIVERS,
    Entry,
    Snapshot,
    StoreError,
    name_of,
)

__all__ = ["RedisStore"]

_PATIENCE_S = 1.0  # for a reply
_IN_ALL_S = 5.0  # for a snapshot
_AGAIN_S = 1.0  # until the hints are listened to again
_HINTS_S = 60.0
_PAGE = 500  # entries: less than a millisecond of Redis's time
_MAX_NAME_BYTES = 64
_SHARED_FOR_MS = 60_000
_MADE_WITHIN_MS = 1000
_MOST_SHARED_BYTES = 64 << 20  # compressed, and again as much as eight times that when it is not
_A_TURN = 500  # entries that are decoded before others have their turn
_SIZES = struct.Struct(">HI")
_PAGES = struct.Struct(">I")

# Keys: the entry, the index. Arguments: name, bytes, time to live in ms, channel.
# What stands there and is no entry of ours (another type, no time to live) is replaced.
_PUT = f"""
local there = redis.pcall('GETRANGE', KEYS[1], 0, {MAX_ENTRY_BYTES})
if type(there) == 'table' or redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('DEL', KEYS[1])
  there = ''
end
local head = string.sub(there, 1, {HEAD_BYTES})
local another = string.sub(head, 1, 16) ~= string.sub(ARGV[2], 1, 16)
local elsewhere = string.sub(head, 17, 32) ~= string.sub(ARGV[2], 17, 32)
if #there > {HEAD_BYTES} and another and elsewhere then return there end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local added = redis.pcall('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
if type(added) == 'table' then
  redis.call('DEL', KEYS[2])
  redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - 10000 * ARGV[3]))
if head ~= string.sub(ARGV[2], 1, {HEAD_BYTES}) then redis.call('PUBLISH', ARGV[4], ARGV[1]) end
return ''
"""

# Keys: the entry, the index. Arguments: name, generation, channel.
_REMOVE = """
local there = redis.pcall('GETRANGE', KEYS[1], 0, 15)
if there ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('ZREM', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
"""

# Keys: the index. Arguments: beginning of the entries' keys, the last page's end or nothing, time to live in ms,
# entries of a page. Returns the page's end (empty after the last one) and its entries, each with the sizes of name and
# value before it: one string, because Python would take longer to read an array.
_READ = f"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local from = ARGV[2]
if from == '' then from = string.format('%.0f', now - 1000 * ARGV[3]) end
local found = redis.pcall(
  'ZRANGEBYSCORE', KEYS[1], '(' .. from, string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, ARGV[4])
if found.err then return {{'', ''}} end
local page = {{}}
for i = 1, #found, 2 do
  local name = found[i]
  local value = #name > {_MAX_NAME_BYTES} and {{}} or redis.pcall('GETRANGE', ARGV[1] .. name, 0, {MAX_ENTRY_BYTES})
  if type(value) == 'table' then value = '!' end
  if #name > {_MAX_NAME_BYTES} then name = '' end
  page[#page + 1] = struct.pack('>I2I4', #name, #value) .. name .. value
end
local full = #found == 2 * tonumber(ARGV[4])
return {{full and found[#found] or '', table.concat(page)}}
"""


# Keys: the shared snapshot, the sign that somebody makes one. Arguments: how old it may be in ms.
# Returns it, or nothing where who asks is to make it.
_SHARED = f"""
local age = {_SHARED_FOR_MS} - redis.call('PTTL', KEYS[1])
local most = tonumber(ARGV[1])
if age > most and redis.call('SET', KEYS[2], '', 'NX', 'PX', {_MADE_WITHIN_MS}) then return '' end
if age < 0 or age > most + {_MADE_WITHIN_MS} then return '' end
local value = redis.pcall('GETRANGE', KEYS[1], 0, {_MOST_SHARED_BYTES})
return type(value) == 'table' and '' or value
"""


class _Password(CredentialProvider):
    """The user and password, read again for each connection, so that a password that changes needs no restart."""

    def __init__(self, user: str | None, file: Path) -> None:
        self._user, self._file = user, file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._file.read_text().strip()
        return (self._user, password) if self._user else (password,)


class RedisStore:
    """The store at ``url``, whose keys all begin with ``prefix``. Entries are good for ``ttl_s``. ``host`` tells this
    host from others, for endpoints that are paths. A snapshot has at most ``MOST`` entries of each kind."""

    MOST: ClassVar[dict[str, int]] = {"transceiver": MAX_TRANSCEIVERS, "edge": MAX_EDGES}

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        ttl_s: float,
        password_file: Path | None = None,
        ca_file: Path | None = None,
        host: str = "",
    ) -> None:
        user = urlsplit(url).username
        bare = url if user is None else url.replace(f"{user}@", "", 1)
        provider = _Password(user and unquote(user), password_file) if password_file else None
        trusted: dict[str, Any] = {"ssl_ca_certs": str(ca_file)} if ca_file else {}
        self._redis: Any = aioredis.Redis.from_url(
            bare,
            username=None if provider or user is None else unquote(user),
            credential_provider=provider,
            socket_timeout=_PATIENCE_S,
            socket_connect_timeout=_PATIENCE_S,
            retry=Retry(NoBackoff(), 1),  # a connection that Redis closed meanwhile is made anew
            max_connections=8,
            **trusted,
        )
        self._prefix = prefix
        self._ttl_ms = round(1000 * ttl_s)
        self._host = host
        self._channel = f"{prefix}:changed"
        scripts = (self._redis.register_script(text) for text in (_PUT, _REMOVE, _READ, _SHARED))
        self._put, self._remove, self._read, self._share = scripts
        self._shared_keys = [f"{prefix}:snapshot", f"{prefix}:snapshot-made"]
        self._listening: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self.listens = False
        """Whether hints are heard now."""

    async def put(self, entry: Entry) -> Entry | None:
        """See Store."""
        packed, (kind, name) = pack(entry, self._host), name_of(entry)
        async with _troubles():
            there = await self._put(self._keys(kind, name), [name, packed, self._ttl_ms, self._channel])
        if not there:
            return None
        try:
            return unpack(kind, name, there)
        except ValueError as e:
            raise StoreError(f"{self._keys(kind, name)[0]} is taken by something else ({e}): remove it") from None

    async def remove(self, entry: Entry) -> None:
        """See Store."""
        kind, name = name_of(entry)
        async with _troubles():
            await self._remove(self._keys(kind, name), [name, f"{entry.generation:016x}", self._channel])

    async def snapshot(self, at_most_s: float = 0.0) -> Snapshot:
        """See Store."""
        async with _troubles(), asyncio.timeout(_IN_ALL_S):
            pages = await self._shared(at_most_s) if at_most_s else None
            if pages is None:
                pages = [b"".join([page async for page in self._pages(kind)]) for kind in self.MOST]
                if at_most_s:
                    packed = await asyncio.to_thread(_compressed, pages)
                    await self._redis.set(self._shared_keys[0], packed, px=_SHARED_FOR_MS)
        refused: Counter[str] = Counter()
        found = [await self._decoded(kind, page, refused) for kind, page in zip(self.MOST, pages, strict=True)]
        transceivers: Any = {int(name): entry for name, entry in found[0].items()}
        edges: Any = found[1]
        return Snapshot(transceivers, edges, dict(refused), sum(map(len, pages)))

    async def changed(self) -> None:
        """See Store."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        await self._told.wait()
        self._told.clear()

    async def close(self) -> None:
        """See Store."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    def _keys(self, kind: str, name: str) -> list[str]:
        return [f"{self._prefix}:{kind}:{name}", f"{self._prefix}:{kind}s"]

    async def _pages(self, kind: str) -> AsyncIterator[bytes]:
        after: bytes = b""
        for _ in range(2 * self.MOST[kind] // _PAGE + 1):  # there may be hundreds of thousands
            args: list[Any] = [f"{self._prefix}:{kind}:", after, self._ttl_ms, _PAGE]
            after, page = await self._read([f"{self._prefix}:{kind}s"], args)
            yield page
            if not after:
                return

    async def _shared(self, at_most_s: float) -> list[bytes] | None:
        """The pages of each kind as somebody else has read them."""
        packed = await self._share(self._shared_keys, [round(1000 * at_most_s)])
        return await asyncio.to_thread(_uncompressed, packed) if packed else None

    async def _decoded(self, kind: str, page: bytes, refused: Counter[str]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        most = self.MOST[kind]
        for i, (name, packed) in enumerate(_entries(page), 1):
            if len(entries) >= most and name not in entries:
                refused["too_many"] += 1
            elif packed and (entry := _entry(kind, name, packed, refused)) is not None:
                entries[name] = entry
            if i % _A_TURN == 0:
                await asyncio.sleep(0)
        return entries

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as hints:
                    await hints.subscribe(self._channel)
                    while True:
                        message = await hints.get_message(timeout=_HINTS_S)
                        self.listens = True
                        if message and message["type"] == "message":
                            self._told.set()
            except (RedisError, OSError, TimeoutError):
                self.listens = False
                await asyncio.sleep(_AGAIN_S)  # it is a hint: the next snapshot will be there without it


def _compressed(pages: list[bytes]) -> bytes:
    return zlib.compress(_PAGES.pack(len(pages[0])) + b"".join(pages), 1)


def _uncompressed(packed: bytes) -> list[bytes] | None:
    """The pages of each kind, or None where these bytes are none."""
    try:
        whole = zlib.decompressobj().decompress(packed, 8 * _MOST_SHARED_BYTES)
        (first,) = _PAGES.unpack_from(whole)
    except (zlib.error, struct.error):
        return None
    return [whole[_PAGES.size : _PAGES.size + first], whole[_PAGES.size + first :]]


def _entries(page: bytes) -> Iterator[tuple[str, memoryview]]:
    """The names and values of a page; what follows a fault is left out."""
    at, whole = 0, memoryview(page)
    while at + _SIZES.size <= len(page):
        name_bytes, value_bytes = _SIZES.unpack_from(page, at)
        at += _SIZES.size
        name = page[at : at + name_bytes].decode(errors="replace")
        at += name_bytes
        yield name, whole[at : at + value_bytes]
        at += value_bytes


def _entry(kind: str, name: str, packed: memoryview, refused: Counter[str]) -> Entry | None:
    if len(packed) > MAX_ENTRY_BYTES:
        refused["too_large"] += 1
        return None
    try:
        return unpack(kind, name, packed)
    except ValueError:
        refused["malformed"] += 1
        return None


@asynccontextmanager
async def _troubles() -> AsyncIterator[None]:
    """Makes one error of all that Redis and the way to it can do wrong."""
    try:
        yield
    except TimeoutError:
        raise StoreError("Redis does not answer in time") from None
    except (RedisError, OSError) as e:
        raise StoreError(str(e) or type(e).__name__) from None
