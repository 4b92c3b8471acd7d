"""The eight tasks, what they are called, and the sentences that ask for them.

A task is an object and a pad. Each list has sentences with a place for both; nouns and sentences of `UNSEEN`
occur in no sentence of `TRAINED`, but for the colours, which are what they are.
"""

from typing import Literal, NamedTuple

OBJECTS = ("red box", "blue cylinder", "pink box", "white cylinder")
PADS = ("green disc", "yellow square")
Wordings = Literal["trained", "unseen", "shuffled", "wrong"]
WORDINGS: tuple[Wordings, ...] = ("trained", "unseen", "shuffled", "wrong")

TRAINED = (
    "put the {object} on the {pad}",
    "place the {object} on the {pad}",
    "move the {object} to the {pad}",
    "pick up the {object} and put it on the {pad}",
    "take the {object} to the {pad}",
    "lift the {object} and set it down on the {pad}",
    "the {object} goes on the {pad}",
    "bring me the {object} over to the {pad}",
    "on the {pad}, put the {object}",
    "grab the {object}, then drop it on the {pad}",
    "I want the {object} on the {pad}",
    "please move the {object} onto the {pad}",
)
UNSEEN = (
    "could you transfer the {object} to the {pad}?",
    "carry the {object} across until it sits on the {pad}",
    "the {pad} is where the {object} belongs",
    "deliver the {object}; destination: {pad}",
    "find the {object} and leave it lying on top of the {pad}",
    "relocate the {object} so that it rests upon the {pad}",
)
NOUNS = {
    "box": (("box", "block", "brick", "crate"), ("cube",)),
    "cylinder": (("cylinder", "can", "drum", "barrel"), ("canister",)),
    "disc": (("disc", "circle", "dot"), ("round plate",)),
    "square": (("square", "mat", "tile"), ("rectangle",)),
}
"""What a shape is called: in trained wordings, and in unseen ones."""


class Task(NamedTuple):
    """What is to be done; success is counted by it."""

    object: str
    pad: str

    @property
    def name(self) -> str:
        return f"{self.object} to {self.pad}"


TASKS = tuple(Task(object_, pad) for object_ in OBJECTS for pad in PADS)


def sentences(task: Task, *, unseen: bool = False) -> tuple[str, ...]:
    """Return every wording of a task in one of the two lists, in a fixed order."""

    def names(thing: str) -> list[str]:
        colour, shape = thing.split()
        return [f"{colour} {noun}" for noun in NOUNS[shape][unseen]]

    return tuple(
        form.format(object=object_, pad=pad)
        for form in (UNSEEN if unseen else TRAINED)
        for object_ in names(task.object)
        for pad in names(task.pad)
    )
