"""What frames of a video are made of: packets, read without decoding them.

A frame needs the packets from the last keyframe before it up to its own, in the order in which they are
decoded. Those of an episode stay the same when its video is cut out at keyframes or joined to others
without encoding it again, as LeRobot's own tools do; file, place in it and times may change. FFmpeg, when it
joins H.264, repeats parts of the file's header before keyframes; such repetitions are passed over.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from vla.embed.datasets.images import FrameError


@dataclass(frozen=True)
class Packets:
    """The packets of a video, in the order of decoding."""

    coding: bytes
    """Codec, size and the codec's own header: what a decoder is told before the first packet."""
    time_s: np.ndarray
    """float64 [packets], when each is shown [s]."""
    key: np.ndarray
    """bool [packets], which are keyframes."""
    digests: np.ndarray
    """uint8 [packets, 32], SHA-256 of each one's bytes."""

    def needed(self, times_s: np.ndarray, tolerance_s: float) -> bytes:
        """Describe what the frames at some instants are made of, wherever in a file they lie.

        Args:
            times_s: instants on the file's clock [s], one after the other.
            tolerance_s: a frame's time may differ by so much [s].

        Returns:
            The coding, the digests of all packets that are decoded, and which of them each frame is.
        """
        order = np.argsort(self.time_s, kind="stable")
        shown = self.time_s[order]
        after = np.clip(np.searchsorted(shown, times_s), 1, max(1, len(shown) - 1)) if len(shown) else None
        if after is None:
            return self.coding + b"no packets"
        nearer = np.abs(shown[after - 1] - times_s) <= np.abs(
            shown[np.minimum(after, len(shown) - 1)] - times_s
        )
        nearest = np.where(nearer, after - 1, np.minimum(after, len(shown) - 1))
        there = np.abs(shown[nearest] - times_s) <= tolerance_s
        if not there.any():
            return self.coding + b"no packets"
        packet = order[nearest]
        keys = np.flatnonzero(self.key[: packet[there].min() + 1])
        first, last = (int(keys[-1]) if len(keys) else 0), int(packet[there].max())
        places = np.where(there, packet - first, -1).astype("<i4")
        return self.coding + self.digests[first : last + 1].tobytes() + places.tobytes()


def read_packets(path: Path) -> Packets:
    """Read the packets of an mp4 file's video.

    Raises:
        FrameError: it is no video, or its packets cannot be read.
    """
    times, keys, digests = [], [], []
    try:
        # The demuxer is named, as for decoding: guessing would follow playlists.
        with av.open(str(path), format="mp4") as container:
            if not container.streams.video:
                raise FrameError("has no video stream")
            stream = container.streams.video[0]
            codec = stream.codec_context
            if codec is None:
                raise FrameError("has a video in a format that is not known here")
            header = codec.extradata or b""
            name = codec.codec.canonical_name  # not of the decoder, which may be another one elsewhere
            told = f"{name} {codec.width}x{codec.height} ".encode() + header
            known = parameter_sets(header) if name == "h264" else frozenset()
            size = header[4] % 4 + 1 if known else 0
            for packet in container.demux(stream):
                if packet.pts is None or not packet.size:  # the end
                    continue
                times.append(float(packet.pts * packet.time_base))
                keys.append(packet.is_keyframe)
                data = without(known, bytes(packet), size) if known else bytes(packet)
                digests.append(hashlib.sha256(data).digest())
    except (av.FFmpegError, OSError) as error:
        raise FrameError(f"is no mp4 video that can be read ({str(error).splitlines()[0]})") from error
    return Packets(
        coding=hashlib.sha256(told).digest(),
        time_s=np.array(times, np.float64),
        key=np.array(keys, bool),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
    )


def parameter_sets(header: bytes) -> frozenset[bytes]:
    """Return the parameter sets in the header of H.264 in mp4 (avcC); none if it has another form."""
    found, place = [], 5
    try:
        if header[0] != 1:
            return frozenset()
        for mask in (31, 255):  # of sequences, then of pictures
            count, place = header[place] & mask, place + 1
            for _ in range(count):
                size, place = int.from_bytes(header[place : place + 2]), place + 2
                found.append(header[place : place + size])
                place += size
    except IndexError:
        return frozenset()
    return frozenset(found)


def without(known: frozenset[bytes], packet: bytes, size: int) -> bytes:
    """Return a packet of H.264 in mp4 without those of its units that are known.

    Args:
        known: the units to leave out.
        packet: units, each behind its length.
        size: bytes of a length.
    """
    kept, place = [], 0
    while place < len(packet):
        start = place + size
        stop = start + int.from_bytes(packet[place:start])
        if stop > len(packet):
            return packet
        if packet[start:stop] not in known:
            kept.append(packet[place:stop])
        place = stop
    return b"".join(kept)
