"""The 50 tasks of Meta-World: how hard each is said to be, and what it asks for in words.

The tiers are those of Seo et al., "Masked World Models for Visual Control" (2022, arXiv 2206.14244). Later
papers, 3D Diffusion Policy (arXiv 2403.03954) among them, report their means by tier.
"""

from typing import NamedTuple

TIERS = ("easy", "medium", "hard", "very hard")


class Task(NamedTuple):
    """One task."""

    tier: str
    instruction: str


TASKS: dict[str, Task] = {
    name: Task(tier, instruction)
    for tier, tasks in {
        "easy": {
            "button-press": "Press the button.",
            "button-press-topdown": "Press the button from above.",
            "button-press-topdown-wall": "Reach over the wall and press the button from above.",
            "button-press-wall": "Reach around the wall and press the button.",
            "coffee-button": "Press the button of the coffee machine.",
            "dial-turn": "Turn the dial.",
            "door-close": "Close the door.",
            "door-lock": "Lock the door.",
            "door-open": "Open the door.",
            "door-unlock": "Unlock the door.",
            "drawer-close": "Close the drawer.",
            "drawer-open": "Open the drawer.",
            "faucet-close": "Close the faucet.",
            "faucet-open": "Open the faucet.",
            "handle-press": "Press the handle down.",
            "handle-press-side": "Press the handle down from the side.",
            "handle-pull": "Pull the handle up.",
            "handle-pull-side": "Pull the handle up from the side.",
            "lever-pull": "Pull the lever up.",
            "peg-unplug-side": "Pull the peg out sideways.",
            "plate-slide": "Slide the plate into the goal.",
            "plate-slide-back": "Slide the plate back out of the goal.",
            "plate-slide-back-side": "Slide the plate out of the goal, to the side.",
            "plate-slide-side": "Slide the plate into the goal from the side.",
            "reach": "Move the hand to the red ball.",
            "reach-wall": "Move the hand past the wall, to the red ball.",
            "window-close": "Close the window.",
            "window-open": "Open the window.",
        },
        "medium": {
            "basketball": "Put the ball into the basket.",
            "bin-picking": "Move the cube from one bin to the other.",
            "box-close": "Put the lid on the box.",
            "coffee-pull": "Pull the mug away from the coffee machine.",
            "coffee-push": "Push the mug under the coffee machine.",
            "hammer": "Hit the nail with the hammer.",
            "peg-insert-side": "Push the peg into the hole from the side.",
            "push-wall": "Push the puck past the wall, to the goal.",
            "soccer": "Kick the ball into the goal.",
            "sweep": "Sweep the cube off the table.",
            "sweep-into": "Sweep the cube into the hole.",
        },
        "hard": {
            "assembly": "Put the ring on the peg.",
            "hand-insert": "Push the cube into the hole with the hand.",
            "pick-out-of-hole": "Pick the puck out of the hole.",
            "pick-place": "Pick up the puck and hold it at the goal.",
            "push": "Push the puck to the goal.",
            "push-back": "Push the cube back to the goal.",
        },
        "very hard": {
            "disassemble": "Take the ring off the peg.",
            "pick-place-wall": "Carry the puck over the wall, to the goal.",
            "shelf-place": "Put the cube on the shelf.",
            "stick-pull": "Pull the mug with the stick.",
            "stick-push": "Push the mug with the stick.",
        },
    }.items()
    for name, instruction in tasks.items()
}
"""By the name that the package has, without its `-v3`."""
