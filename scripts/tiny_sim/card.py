"""Write the model card of `siglip2-tiny-sim` from the figures of its training and its probe.

python scripts/tiny_sim/train.py ... | tee first.jsonl
python scripts/tiny_sim/train.py --init ... | tee second.jsonl
python scripts/tiny_sim/probe.py
python scripts/tiny_sim/card.py --training first.jsonl second.jsonl --out embed/assets/siglip2-tiny-sim
"""

import argparse
import json
from pathlib import Path

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [robotics, simulation]
---

# siglip2-tiny-sim

A small SigLIP vision tower (width {width}, {layers} layers, patches of {patch}, 256x256 input;
{megabytes:.1f} MB in float16) that comes with `vla`, for machines without Hub or GPU. It loads with
`SiglipVisionModel.from_pretrained`.

**What it is.** Not SigLIP2's weights, and no general image encoder: trained from random weights,
**supervised by the state of the simulation**. One linear layer on `pooler_output` regresses, for each
view by itself and in its camera's frame, where the box and both grasp centres are, the offsets between
them, the openings of the grippers and the yaw of the box. Two more things were asked of it
while training: a layer on the patches, thrown away since, says which of them shows each point, and three
heads of the pooling's attention look there.

**Data.** {views:,} renders of `vla`'s two-arm task, made by `scripts/tiny_sim/render.py`: poses of
disturbed expert episodes and random ones, boxes anywhere; lights, colours and cameras are shaken in four
of five of the first {shaken:,} and in none of the others. No frame of a demonstration.

**Use.** The default of `make demo`. On any other scene its features mean nothing; use
`google/siglip2-base-patch16-256` there.

## Held-out views of the training's own kind

After {steps} updates ({minutes} minutes on two CPU cores, which other work shared; the second training goes
on from the first, with the views of nominal look added), medians over single views:

| box | hands (both) | offsets (both) |
|---|---|---|
| {box_mm:.0f} mm | {hands_mm:.0f} mm | {offset_mm:.0f} mm |

## What a linear map reads off the pooled features of the three views

Scenes as in demonstrations, {train} to fit and {test} held out (`scripts/tiny_sim/probe.py`):

{table}
"""


def probe_table(rows: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table of errors."""
    names = list(next(iter(rows.values())))
    lines = ["| features | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for features, figures in rows.items():
        lines.append(f"| {features} | " + " | ".join(f"{figures[name]:.1f} mm" for name in names) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--training", type=Path, nargs="+", required=True, help="what each train.py printed")
    parser.add_argument("--probe", type=Path, default=Path("benchmarks/results/probe.json"))
    parser.add_argument("--shaken", type=int, default=60_000, help="views of render.py")
    parser.add_argument("--nominal", type=int, default=30_000, help="views of render.py --nominal 1")
    parser.add_argument("--out", type=Path, default=Path("embed/assets/siglip2-tiny-sim"))
    arguments = parser.parse_args()
    rows = [
        json.loads([line for line in path.read_text().splitlines() if line.startswith("{")][-1])
        for path in arguments.training
    ]
    last = rows[-1]
    probe = json.loads(arguments.probe.read_text())
    config = json.loads((arguments.out / "config.json").read_text())
    card = CARD.format(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        patch=config["patch_size"],
        megabytes=(arguments.out / "model.safetensors").stat().st_size / 1e6,
        views=arguments.shaken + arguments.nominal,
        shaken=arguments.shaken,
        steps=" and ".join(f"{row['step']:,}" for row in rows),
        minutes=" and ".join(str(round(row["seconds"] / 60)) for row in rows),
        box_mm=last["box_mm"],
        hands_mm=last["hands_mm"],
        offset_mm=last["offset_mm"],
        train=probe["scenes"]["train"],
        test=probe["scenes"]["test"],
        table=probe_table(probe["error_mm"]),
    )
    (arguments.out / "README.md").write_text(card)


if __name__ == "__main__":
    main()
