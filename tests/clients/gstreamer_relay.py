"""GStreamer's webrtcbin sends video to another one through a TURN server, by relayed candidates only.

usage: gstreamer_relay.py HOST PORT USERNAME PASSWORD ADDRESS FRAMES SECONDS
Prints what was seen as JSON; exits 0 when FRAMES frames were decoded, and every candidate was a relayed one with
ADDRESS (or one of several, joined by +). For Debian's interpreter, which has the bindings.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402,F401 (the SDP types come with GstSdp)

SENDER = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1"
    " ! vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay pt=96 picture-id-mode=15-bit"
    " ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! webrtcbin name=sender"
    " webrtcbin name=receiver"
)
ENOUGH = "enough"


class Call:
    """Both ends, in one pipeline."""

    def __init__(self, turn, frames):
        self.frames = frames
        self.decoded = 0
        self.candidates = []
        self.pipeline = Gst.parse_launch(SENDER)
        self.sender, self.receiver = (self.pipeline.get_by_name(name) for name in ("sender", "receiver"))
        for end, other in ((self.sender, self.receiver), (self.receiver, self.sender)):
            end.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
            end.set_property("ice-transport-policy", GstWebRTC.WebRTCICETransportPolicy.RELAY)
            end.set_property("turn-server", turn)
            end.connect("on-ice-candidate", self.on_candidate, other)
        self.sender.connect("on-negotiation-needed", self.on_negotiation_needed)
        self.receiver.connect("pad-added", self.on_stream)

    def on_candidate(self, _, line, candidate, other):
        self.candidates.append(candidate)
        other.emit("add-ice-candidate", line, candidate)

    def on_negotiation_needed(self, _):
        self.describe("offer", self.sender, self.receiver, self.answer)

    def answer(self):
        self.describe("answer", self.receiver, self.sender, lambda: None)

    def describe(self, kind, own, other, then):
        """Makes an offer or an answer, sets it at both ends, and goes on."""

        def described(promise):
            # The description is a part of the reply, and goes with it.
            reply = promise.get_reply()
            description = reply.get_value(kind)
            own.emit("set-local-description", description, None)
            other.emit("set-remote-description", description, Gst.Promise.new_with_change_func(lambda _: then()))

        own.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(described))

    def on_stream(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        decoder = Gst.ElementFactory.make("decodebin")
        decoder.connect("pad-added", self.on_video)
        self.add(decoder, pad)

    def on_video(self, _, pad):
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("signal-handoffs", True)
        sink.set_property("sync", False)
        sink.connect("handoff", self.on_frame)
        self.add(sink, pad)

    def add(self, element, pad):
        self.pipeline.add(element)
        element.sync_state_with_parent()
        pad.link(element.get_static_pad("sink"))

    def on_frame(self, sink, *_):
        self.decoded += 1
        if self.decoded == self.frames:
            sink.post_message(Gst.Message.new_application(sink, Gst.Structure.new_empty(ENOUGH)))

    def run(self, seconds):
        """Until enough was decoded, something broke, or the time is over; what broke."""
        self.pipeline.set_state(Gst.State.PLAYING)
        kinds = Gst.MessageType.APPLICATION | Gst.MessageType.ERROR
        message = self.pipeline.get_bus().timed_pop_filtered(seconds * Gst.SECOND, kinds)
        self.pipeline.set_state(Gst.State.NULL)
        if message and message.type == Gst.MessageType.ERROR:
            return str(message.parse_error())
        return None


def is_relayed(candidate, addresses):
    words = candidate.split()
    return words[words.index("typ") + 1] == "relay" and words[4] in addresses


def run(host, port, username, password, addresses, frames, seconds):
    Gst.init(None)
    call = Call(f"turn://{username}:{password}@{host}:{port}?transport=udp", frames)
    error = call.run(seconds)
    states = [end.get_property("ice-connection-state").value_nick for end in (call.sender, call.receiver)]
    seen = {"frames": call.decoded, "states": states, "candidates": call.candidates, "error": error}
    print(json.dumps(seen))
    relayed = call.candidates and all(is_relayed(candidate, addresses) for candidate in call.candidates)
    return call.decoded >= frames and relayed


if __name__ == "__main__":
    _, host, port, username, password, addresses, frames, seconds = sys.argv
    sys.exit(0 if run(host, port, username, password, addresses.split("+"), int(frames), int(seconds)) else 1)
