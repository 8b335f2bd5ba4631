"""A WHIP publisher and a WHEP viewer on aiortc, a WebRTC stack that shares no code with browsers or Antiphon.

    aiortc_peer.py publish URL            sends until its standard input closes; prints one line once connected
    aiortc_peer.py view URL FRAMES        ends once that many video frames and as many audio frames are decoded

What it saw is printed as one JSON object on a line. Exit 1 when it was refused or saw nothing in time.
"""

import asyncio
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

SECONDS_MAX = 40


def post(url: str, offer: str) -> tuple[str, str]:
    """One POST as in RFC 9725 section 4.2: the answer and the session's own address."""
    request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"})
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode(), urllib.parse.urljoin(url, answer.headers["Location"])


def delete(url: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE")) as answer:
        return answer.status


async def negotiate(connection: RTCPeerConnection, url: str) -> str:
    await connection.setLocalDescription(await connection.createOffer())
    answer, location = await asyncio.to_thread(post, url, connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    return location


def connected(connection: RTCPeerConnection) -> asyncio.Event:
    event = asyncio.Event()

    @connection.on("connectionstatechange")
    def changed() -> None:
        if connection.connectionState == "connected":
            event.set()

    return event


async def publish(url: str) -> dict:
    connection = RTCPeerConnection()
    up = connected(connection)
    connection.addTransceiver(AudioStreamTrack(), direction="sendonly")
    connection.addTransceiver(VideoStreamTrack(), direction="sendonly")
    location = await negotiate(connection, url)
    await asyncio.wait_for(up.wait(), SECONDS_MAX)
    print(json.dumps({"connected": True}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    status = await asyncio.to_thread(delete, location)
    await connection.close()
    return {"deleted": status}


async def view(url: str, frames: int) -> dict:
    connection = RTCPeerConnection()
    connection.addTransceiver("audio", direction="recvonly")
    connection.addTransceiver("video", direction="recvonly")
    counts = {"audio": 0, "video": 0}
    height = 0

    async def count(track) -> None:
        nonlocal height
        while counts[track.kind] < frames:
            frame = await track.recv()
            counts[track.kind] += 1
            if track.kind == "video":
                height = frame.height

    tasks = []
    connection.on("track", lambda track: tasks.append(asyncio.create_task(count(track))))
    location = await negotiate(connection, url)
    try:
        await asyncio.wait_for(asyncio.gather(*tasks), SECONDS_MAX)
    finally:
        print(json.dumps({"counts": counts, "height": height}), flush=True)
    status = await asyncio.to_thread(delete, location)
    await connection.close()
    return {"deleted": status}


async def main() -> None:
    act, url, *rest = sys.argv[1:]
    try:
        result = await (publish(url) if act == "publish" else view(url, int(rest[0])))
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code} {error.read().decode()}")
    except TimeoutError:
        sys.exit(f"nothing within {SECONDS_MAX} s")
    print(json.dumps(result), flush=True)


asyncio.run(main())
