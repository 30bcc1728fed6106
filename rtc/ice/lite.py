"""ICE-lite on virtual paths (RFC 8445 section 2.5): no sockets, no candidates, time as an argument.

A path is an edge and the client's address as that edge saw it. The client is always the controlling side and does the
checking; this side answers what is authentic. But a source address is easily invented, and a check that was overheard
can be sent again from anywhere. So a path gets media only when it has proved itself: when a check of our own was
answered there, or DTLS was completed over it. The first path of a call begins without, and until it has proved itself
it draws less than three times what came from it, as any other (``allowance.py``). Whoever has proved nothing takes no
path from anybody.

Consent (RFC 7675) is renewed by checks of the client that are new, and, where these stay away, by answers to ours.
Nothing without a valid MESSAGE-INTEGRITY changes or is answered.
"""

from __future__ import annotations

import secrets

from rtc.bucket import Bucket
from rtc.ice.paths import Generation, Known, Path
from rtc.ice.state import IceState
from wire import stun

__all__ = ["CONSENT_S", "MAX_PATHS", "NEVER_CAME_S", "IceLite", "Path"]

CONSENT_S = 30.0
# Whoever places a call has had its permissions asked for before, and checks as soon as it has the answer; after 15 s
# libwebrtc's own checks have failed, too.
NEVER_CAME_S = 15.0
MAX_PATHS = 16
PROBE_EVERY_S = 0.05
UNPROVED_S = 5.0
# A client that checks several paths checks each at least this often (libwebrtc 2.5 s, aioice and libnice 5 s).
_STALE_S = 6.0
_KEEP_S = 10.0  # between checks of ours on a path that is not selected; libwebrtc forgets a pair after 30 s of silence
_SILENT_S = 0.2  # without media on the selected path: the client may send by another now
_CHECKS_PER_S = 100.0  # that are answered; libwebrtc sends 20 and aioice 50, over all paths
_STRANGE_CHECKS_PER_S = 200.0  # that are refused, by paths that are not known
_RESTARTS_PER_S, _RESTARTS_AT_ONCE = 0.2, 5.0  # a client that changes networks and back, and tries again
_REMEMBERED = 256  # transactions: ten minutes of libwebrtc's


class IceLite:
    """The answering side of one session. ``password`` is ours, 144 random bits; ``remote`` are the client's ufrag and
    password. ``refusal`` is the reason why the last check got no answer, as ``counters.RX_DATAGRAMS`` names it."""

    def __init__(
        self,
        ufrag: str,
        now: float,
        *,
        remote_ufrag: str = "",
        remote_password: str = "",
        consent_s: float = CONSENT_S,
    ) -> None:
        self.selected: Path | None = None
        self.refusal = "stun_not_authentic"
        self._generation = Generation(ufrag, (remote_ufrag, remote_password))
        self._former: Generation | None = None  # while no check of the present one has come
        self._consent_s = consent_s
        self._began = now
        self._consent: float | None = None  # of any path that may have media, when last
        self._paths: dict[Path, Known] = {}
        self._nominated: Path | None = None
        self._spoke = now  # when media came by the selected path, or that was selected
        self._seen: dict[bytes, Path] = {}  # transactions, and where each came by first; the newest last
        # What is refused takes nothing from the client: who overheard the ufrag can send as much as it likes.
        self._checks = Bucket(_CHECKS_PER_S, _CHECKS_PER_S)
        self._strange_checks = Bucket(_STRANGE_CHECKS_PER_S, _STRANGE_CHECKS_PER_S)
        self._restarts = Bucket(_RESTARTS_PER_S, _RESTARTS_AT_ONCE)
        self._tie_breaker = secrets.randbits(64)

    @property
    def ufrag(self) -> str:
        """Our ufrag since the last restart."""
        return self._generation.ufrag

    @property
    def password(self) -> str:
        """Our password since the last restart."""
        return self._generation.password

    @property
    def remote(self) -> tuple[str, str]:
        """The client's ufrag and password, since the last restart."""
        return self._generation.remote

    @property
    def ufrags(self) -> tuple[str, ...]:
        """All ufrags that checks may name now."""
        return tuple(g.ufrag for g in (self._former, self._generation) if g is not None)

    def may_restart(self, now: float) -> bool:
        """Whether a restart is within what a client has reason for."""
        return self._restarts.take(now)

    def restart(self, ufrag: str, remote: tuple[str, str]) -> None:
        """Takes new credentials (RFC 8445 section 9). The old ones hold until a check proves that the client has the
        new, and media stays where it is until then, so a restart that fails costs nothing."""
        self._former = self._former or self._generation
        self._generation = Generation(ufrag, remote)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path on which something authentic came lately."""
        return tuple(self._paths)

    @property
    def probing(self) -> tuple[Path, ...]:
        """Every path to which a check of ours is under way."""
        return tuple(path for path, known in self._paths.items() if known.probe)

    def knows(self, path: Path) -> bool:
        """Whether something authentic came by ``path`` lately."""
        return path in self._paths

    def is_proved(self, path: Path) -> bool:
        """Whether the client is certainly there."""
        known = self._paths.get(path)
        return known is not None and known.proved

    # --- what comes

    def check(self, message: stun.Message, path: Path, now: float, *, free: bool = True) -> bytes | None:
        """The response to a binding request that arrived on ``path``, or None where it gets none.

        Chromium nominates 50 ms after its first check, so the first valid one is latched at once, if the path is
        ``free`` and not another session's. A later USE-CANDIDATE on another path moves the selection there, as soon as
        that has proved itself.
        """
        budget = self._checks if path in self._paths else self._strange_checks
        if not budget.has(now):
            self.refusal = "overflow"
            return None
        response = self._checked(message, path, now, free=free)
        if response is None and path not in self._paths:
            self._strange_checks.take(now)
        elif response is not None:
            self._checks.take(now)
        return response

    def _checked(self, message: stun.Message, path: Path, now: float, *, free: bool) -> bytes | None:
        self.refusal = "stun_not_authentic"
        generation = self._named(message)
        if message.kind != stun.BINDING_REQUEST or not stun.integrity_is_valid(message, generation.key):
            return None
        first = self._seen.get(message.transaction)
        if first is not None and first != path and not self._waits(first):
            # It was overheard: nobody uses a transaction on two paths. Only while the path that it came by first has
            # proved nothing it cannot be said which of the two was the client.
            self.refusal = "stun_replayed"
            return None
        known = self._enter(path, now)
        if known is None:
            self.refusal = "stun_many_paths"
            return None
        known.allowance.came(len(message.raw))
        response = stun.binding_response(message, path.address, generation.key)
        if not known.proved and not known.allowance.take(len(response)):
            self.refusal = "stun_many_paths"
            return None
        if first == path:
            return response  # sent again; it had its effect the first time
        self._remember(message.transaction, path)
        restarted = self._former is not None and generation is self._generation
        if restarted:
            self._former = None
        if self.selected is None and self._consent is None and free:
            self.selected = path
        if restarted or stun.USE_CANDIDATE in message.attributes:
            self._nominated = path
        known.heard = now
        if known.proved or path == self.selected:
            self._consent = known.consent = now
        if known.proved:
            self._choose(path, now)
        return response

    def _named(self, message: stun.Message) -> Generation:
        """The credentials that a check uses."""
        former = self._former
        return former if former and stun.server_ufrag(message) == former.ufrag.encode() else self._generation

    def _waits(self, path: Path) -> bool:
        known = self._paths.get(path)
        return known is not None and not known.proved

    def _enter(self, path: Path, now: float) -> Known | None:
        known = self._paths.get(path)
        if known is None and len(self._paths) < MAX_PATHS:
            known = self._paths[path] = Known(now)
        return known

    def _remember(self, transaction: bytes, path: Path) -> None:
        self._seen.pop(transaction, None)
        self._seen[transaction] = path
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def moved(self, path: Path, size: int, now: float) -> None:
        """Takes note that authentic media of ``size`` bytes came by a path that was not known: the client sends there
        now, and is answered there when a probe has shown that it can hear there."""
        known = self._enter(path, now)
        if known is not None:
            known.allowance.came(size)
            known.heard = now
            known.moved = True

    def spoke(self, path: Path, now: float) -> bool:
        """Takes note of authentic media by a path that is known. Returns whether that is selected because of it: the
        client, which can hear there, has left the selected one, by which nothing comes any more."""
        if path == self.selected:
            self._spoke = now
            return False
        if now - self._spoke < _SILENT_S or not self.is_proved(path):
            return False
        self._nominated = self.selected = path
        self._spoke = now
        return True

    def came(self, path: Path | None, size: int) -> None:
        """Takes note that ``size`` bytes came by ``path``, which may draw so much more."""
        known = self._paths.get(path) if path is not None else None
        if known is not None and not known.proved:
            known.allowance.came(size)

    def may_send(self, path: Path, size: int) -> bool:
        """Whether a datagram of ``size`` bytes may go to ``path``; if so, it counts as sent."""
        known = self._paths.get(path)
        return known is not None and (known.proved or known.allowance.take(size))

    # --- proof

    def probe(self, path: Path, now: float) -> bytes | None:
        """A check of our own for a path on which something authentic came and that has not proved itself. None for
        other paths, and where the last check is still young.

        A lite agent sends none by itself; a full one answers it like any other (RFC 8445 section 7.3).
        """
        known = self._paths.get(path)
        return None if known is None or known.proved else self._probe(known, now)

    def _probe(self, known: Known, now: float) -> bytes | None:
        if now - known.probed < PROBE_EVERY_S:
            return None
        transaction = known.probe or secrets.token_bytes(12)
        generation = self._former or self._generation
        request = stun.binding_request(
            generation.remote_username, generation.remote_key, controlled=self._tie_breaker, transaction=transaction
        )
        if not known.proved and not known.allowance.take(len(request)):
            return None
        known.probe, known.probed = transaction, now
        return request

    def due(self, now: float) -> list[tuple[Path, bytes]]:
        """The probes to send; called about once a second. A probe goes where one was not answered, to the selected path
        where nothing has renewed consent for half its time, and to others that have proved themselves: a client to
        which nothing comes by such a path forgets it, and has none left when the selected one ends."""
        probes = []
        for path, known in self._paths.items():
            if path == self.selected:
                old = now - known.consent > self._consent_s / 2
            else:
                old = known.proved and now - max(known.heard, known.probed) > _KEEP_S
            if (known.probe and not known.proved) or old:
                request = self._probe(known, now)
                if request is not None:
                    probes.append((path, request))
        return probes

    def proved_by(self, message: stun.Message, path: Path, now: float) -> bool:
        """Whether ``message`` answers the probe of ``path``, which then has proved itself and holds consent.

        Where media had come by it, it takes the place of the selected one, whose address the caller's NAT has
        forgotten; should that live, the next check there says so.
        """
        known = self._paths.get(path)
        if (
            known is None
            or message.kind != stun.BINDING_RESPONSE
            or not known.probe
            or message.transaction != known.probe
            or not stun.integrity_is_valid(message, (self._former or self._generation).remote_key)
        ):
            return False
        known.probe = b""
        kept = known.proved and not known.moved
        self._prove(known, now)
        if kept:
            return True  # it says that the client is there, and not that it wants to be heard there
        if known.moved:
            known.moved = False
            if self.selected is not None and self.selected != path:
                del self._paths[self.selected]
            self._nominated = path
        self._choose(path, now)
        return True

    def secured(self, now: float) -> None:
        """Takes note that DTLS was completed, all of it over the selected path or over others that had proved
        themselves: what the peer signed says that it received what was sent there."""
        known = self._paths.get(self.selected) if self.selected is not None else None
        if known is not None and not known.proved:
            known.probe = b""
            self._prove(known, now)

    def _prove(self, known: Known, now: float) -> None:
        known.proved = True
        known.renew(now)
        self._consent = now

    def _choose(self, path: Path, now: float) -> None:
        """Selects ``path``, which has proved itself, if the client wants that, or if the client has left the other."""
        selected = self._paths.get(self.selected) if self.selected is not None else None
        if path == self._nominated or selected is None or now - selected.heard > _STALE_S:
            self.selected = path

    # --- the end

    def forget(self, path: Path) -> None:
        """Forgets a path that is another session's now, which proved it."""
        self._paths.pop(path, None)
        self._reselect()

    def expire(self, now: float) -> list[Path]:
        """Forgets and returns the paths whose consent is too old, and those that have not proved themselves 5 s after
        the last datagram on them; the selection moves to the freshest."""
        gone = [path for path, known in self._paths.items() if self._is_over(path, known, now)]
        for path in gone:
            del self._paths[path]
        self._reselect()
        return gone

    def _is_over(self, path: Path, known: Known, now: float) -> bool:
        if known.proved or path == self.selected:
            return now - known.consent > self._consent_s
        return now - known.heard > UNPROVED_S

    def _reselect(self) -> None:
        if self.selected not in self._paths:
            proved = {path: known.consent for path, known in self._paths.items() if known.proved}
            self.selected = max(proved, key=proved.__getitem__, default=None)

    def ended(self, now: float) -> str:
        """The reason why the session is over for ICE, or an empty string; call it after ``expire``."""
        if self._consent is None:
            return "never_came" if now - self._began > NEVER_CAME_S else ""
        return "consent_expired" if now - self._consent > self._consent_s else ""

    # --- as a value

    def export(self, now: float) -> IceState:
        """The whole state except for the budgets, which begin anew."""
        paths = list(self._paths)
        return IceState(
            generation=self._generation.export(),
            former=None if self._former is None else self._former.export(),
            paths=[known.export(path, now) for path, known in self._paths.items()],
            selected=paths.index(self.selected) if self.selected in self._paths else None,
            nominated=paths.index(self._nominated) if self._nominated in self._paths else None,
            seen=[(transaction, *path) for transaction, path in self._seen.items()],
            consent_limit_s=self._consent_s,
            began_s=now - self._began,
            consent_s=None if self._consent is None else now - self._consent,
            tie_breaker=self._tie_breaker,
        )

    @classmethod
    def take_up(cls, state: IceState, now: float) -> IceLite:
        """An agent that goes on where ``export`` left off."""
        ice = cls(state.generation.ufrag, now - state.began_s, consent_s=state.consent_limit_s)
        ice._generation = Generation.take_up(state.generation)
        ice._former = None if state.former is None else Generation.take_up(state.former)
        ice._paths = {Path(path.edge, path.address): Known.take_up(path, now) for path in state.paths}
        paths = list(ice._paths)
        ice.selected = None if state.selected is None else paths[state.selected]
        ice._nominated = None if state.nominated is None else paths[state.nominated]
        ice._seen = {transaction: Path(edge, address) for transaction, edge, address in state.seen[-_REMEMBERED:]}
        ice._consent = None if state.consent_s is None else now - state.consent_s
        ice._tie_breaker = state.tie_breaker
        ice._spoke = now
        return ice
