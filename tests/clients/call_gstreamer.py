"""GStreamer's webrtcbin, run by Debian's interpreter: ``call_gstreamer.py URL TOKEN [BUNDLE-POLICY]``. By its default,
none, it wants a transport for the channel alone, which is refused: then this is about the voice."""

from __future__ import annotations

import json
import sys

import gi
from conversation import PACKETS, Conversation, place

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PIPELINE = """webrtcbin name=peer bundle-policy={bundle}
  audiotestsrc is-live=true wave=sine volume=0.1 ! audioconvert ! opusenc ! rtpopuspay pt=111
  ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! peer."""


class Caller:
    def __init__(self, url: str, token: str, bundle: str) -> None:
        self._url, self._token = url, token
        self._heard = 0
        self._voice_alone = bundle == "none"
        self._loop = GLib.MainLoop()
        self.failed = "no call within 60 s"
        self._pipe = Gst.parse_launch(PIPELINE.format(bundle=bundle))
        self._peer = self._pipe.get_by_name("peer")
        self._peer.connect("on-negotiation-needed", self._offer)
        self._peer.connect("pad-added", self._listen)
        self._pipe.set_state(Gst.State.READY)
        channel = self._peer.emit("create-data-channel", "oai-events", None)
        self._conversation = Conversation(lambda text: channel.emit("send-string", text), lambda: self._heard)
        channel.connect("on-message-string", lambda _, text: self._conversation.take(text))
        self._pipe.set_state(Gst.State.PLAYING)

    def run(self) -> dict[str, object]:
        GLib.timeout_add(50, self._poll)
        GLib.timeout_add_seconds(60, self._loop.quit)
        self._loop.run()
        self._pipe.set_state(Gst.State.NULL)
        if self.failed:
            sys.exit(self.failed)
        result = {"heard": self._heard} if self._voice_alone else self._conversation.result
        return {**result, "hung": self._hang_up()}

    def _poll(self) -> bool:
        if self._heard >= PACKETS if self._voice_alone else self._conversation.poll():
            self.failed = ""
            self._loop.quit()
        return True

    def _offer(self, peer: object) -> None:
        self._peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self._offered, None))

    def _offered(self, promise: Gst.Promise, _: object) -> None:
        reply = promise.get_reply()  # the offer lives as long as this does
        offer = reply["offer"]
        self._peer.emit("set-local-description", offer, None)
        try:
            answer, self._hang_up = place(self._url, self._token, offer.sdp.as_text())
        except OSError as e:
            self.failed = f"{e}: {e.read().decode() if hasattr(e, 'read') else ''}"
            self._loop.quit()
            return
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        self._peer.emit("set-remote-description", described, None)

    def _listen(self, _: object, pad: Gst.Pad) -> None:
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("signal-handoffs", True)
        sink.connect("handoff", self._hear)
        self._pipe.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def _hear(self, *_: object) -> None:
        self._heard += 1


Gst.init(None)
print(json.dumps(Caller(*sys.argv[1:3], *(sys.argv[3:] or ["none"])).run()))
