"""aiortc and aioice are as rtc.py takes them: a wire meets an RTCPeerConnection over this machine's loopback."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("aiortc")

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import Packet

from trunkline.gateway.webrtc import rtp
from trunkline.gateway.webrtc.opus import SILENCE
from trunkline.gateway.webrtc.rtc import MAX_QUEUE, AiortcWire, _Ice, certificate
from trunkline.gateway.webrtc.sdp import Fingerprint, Ours, read_offer, write_answer
from trunkline.gateway.webrtc.wire import Paths

WITHIN_S = 20.0
LOOPBACK = Paths(loopback=True, port_min=42_000, port_max=42_999)


class Sink:
    def __init__(self) -> None:
        self.happened: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **more: self.happened.append((name, *args, *more.values()))

    def names(self) -> set[str]:
        return {each[0] for each in self.happened}

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not set(names) <= self.names():
                await asyncio.sleep(0.005)


def microphone() -> Any:
    from aiortc import MediaStreamTrack

    class Microphone(MediaStreamTrack):
        kind = "audio"
        at = 0

        async def recv(self) -> Any:
            import fractions

            await asyncio.sleep(0.02)
            packet = Packet(SILENCE)
            packet.pts, packet.time_base = self.at, fractions.Fraction(1, 48_000)
            self.at += 960
            return packet

    return Microphone()


async def connected(wire: AiortcWire, sink: Any, fingerprint: Fingerprint | None = None) -> tuple[Any, Any, Any]:
    """The peer, its channel, and the offer; the answer may lie about our certificate."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTrack(microphone())
    channel = peer.createDataChannel("events")
    await peer.setLocalDescription(await peer.createOffer())
    offer = read_offer(peer.localDescription.sdp.encode())
    here = await wire.gather(LOOPBACK, None)
    ours = Ours(
        here.ice_username, here.ice_password, fingerprint or here.fingerprint, here.candidates, ssrc=42, session=1
    )
    await peer.setRemoteDescription(RTCSessionDescription(write_answer(offer, ours), "answer"))
    wire.start(offer, WITHIN_S, sink)
    return peer, channel, offer


def test_audio_reports_and_messages_pass_both_ways_and_a_close_is_in_order() -> None:
    async def scenario() -> None:
        wire, sink = AiortcWire(), Sink()
        peer, channel, offer = await connected(wire, sink)
        told: list[str] = []
        channel.on("message", told.append)
        heard: list[Any] = []
        receiver = peer.getReceivers()[0]

        async def hear(packet: Any, arrival_time_ms: int) -> None:
            heard.append(packet)

        receiver._handle_rtp_packet = hear
        await sink.until("connected", "opened", "packet", "control")
        packet = rtp.read(next(each[1] for each in sink.happened if each[0] == "packet"))
        assert packet is not None
        assert (packet.payload_type, packet.payload) == (offer.opus, SILENCE)
        assert wire.tell("hello")
        channel.send("there")
        async with asyncio.timeout(WITHIN_S):
            while not (told and heard and "message" in sink.names()):
                wire.send(rtp.write(offer.opus, 7, 960, 42, SILENCE, marker=True))
                await asyncio.sleep(0.01)
        assert told == ["hello"]
        assert ("message", "there") in sink.happened
        assert (heard[0].ssrc, heard[0].sequence_number, heard[0].payload) == (42, 7, SILENCE)
        await peer.close()
        await sink.until("gone")
        assert sink.happened[-1] == ("gone", "the far end has closed it", True)
        await wire.closed()
        assert not wire.tell("too late")
        wire.send(rtp.write(offer.opus, 8, 960, 42, SILENCE, marker=False))  # nothing, and no error

    asyncio.run(scenario())


def test_ports_are_those_of_the_setting() -> None:
    async def scenario() -> None:
        wire = AiortcWire()
        here = await wire.gather(LOOPBACK, None)
        ports = [int(candidate.split()[5]) for candidate in here.candidates]
        assert ports
        assert all(42_000 <= port <= 42_999 for port in ports)
        assert any(candidate.split()[4] == "127.0.0.1" for candidate in here.candidates)
        wire.close()
        await wire.closed()

    asyncio.run(scenario())


def test_nobody_there_is_said_in_time() -> None:
    async def scenario() -> None:
        wire, other, sink = AiortcWire(), AiortcWire(), Sink()
        peer, _, offer = await connected(other, Sink())
        await wire.gather(LOOPBACK, None)
        wire.start(offer, 0.3, sink)  # its peer talks to another
        await sink.until("gone")
        assert sink.happened == [("gone", "ICE did not complete within 0.3 s", False)]
        other.close()
        await asyncio.gather(wire.closed(), other.closed(), peer.close())

    asyncio.run(scenario())


def test_a_wire_that_we_close_tells_nothing_more() -> None:
    async def scenario() -> None:
        wire, sink = AiortcWire(), Sink()
        peer, _, _ = await connected(wire, sink)
        await sink.until("connected")
        wire.close()
        wire.close()
        before = list(sink.happened)
        await wire.closed()
        assert sink.happened == before
        await peer.close()

    asyncio.run(scenario())


def test_what_waits_for_dtls_is_bounded() -> None:
    async def scenario() -> None:
        agent = _Ice(LOOPBACK, None)
        for _ in range(1000):
            agent.data_received(b"\x16junk", 1)
        assert agent._queue.qsize() == MAX_QUEUE
        assert agent.dropped == 1000 - MAX_QUEUE

    asyncio.run(scenario())


def test_the_certificate_is_one() -> None:
    assert certificate() is certificate()
