"""What a policy must be told of an instant by whatever it drives: an environment, a client, a robot.

A policy observes streams, some of them written by encoders. A robot has none of these: it has the images
that encoders read, and the streams that nothing computes.
"""

from collections.abc import Iterable, Mapping

from vla.cache.metadata import EncoderIdentity
from vla.cache.stream import TASK, Stream


def robot_streams(observes: Iterable[Stream], encoders: Mapping[str, EncoderIdentity]) -> tuple[Stream, ...]:
    """Return the streams that a robot gives: images first, of any size, then all others.

    Args:
        observes: the policy's streams.
        encoders: what wrote them, by `Stream.made_by`.
    """
    streams = [stream for stream in observes if stream.name != TASK]
    cameras = dict.fromkeys(camera for stream in streams for camera in cameras_of(stream, encoders))
    images = [Stream(name=name, kind="image", dtype="uint8", shape=(0, 0, 3)) for name in cameras]
    return (*images, *(stream for stream in streams if stream.made_by is None))


def cameras_of(stream: Stream, encoders: Mapping[str, EncoderIdentity]) -> tuple[str, ...]:
    """Return the cameras that a stream is computed from: one of its name, or all that its encoder sees."""
    if stream.made_by is None:
        return ()
    return encoders[stream.made_by].reads or (stream.name,)


def missing_stream(observes: Iterable[Stream], found: Iterable[object]) -> str:
    """Return a clause that names the first stream which is not there; empty if all are."""
    names = set(found)
    missing = next((stream for stream in observes if stream.name not in names), None)
    if missing is None:
        return ""
    if missing.kind == "image":
        return f"the policy looks through camera '{missing.name}'"
    return f"the policy observes {missing.describe()}"
