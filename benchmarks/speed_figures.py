"""The figures of speed that the documents show: what each is called, where it is found, what it should be."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure and what it should be."""

    what: str
    goal: str
    benchmark: str
    path: str
    """Keys in the result, joined by slashes."""
    meaning: str
    form: Callable[[float], str] = "{:.2f}".format
    gpu_only: bool = False
    cpu_only: bool = False
    in_readme: bool = False


def percent(value: float) -> str:
    return f"{100 * value:.2g} %"


def times(value: float) -> str:
    return f"{value:.3g} x"


def milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def minutes(value: float) -> str:
    return f"{value:.3g} min"


BASE, SMALL, HEAD = "siglip2-base", "siglip2-tiny-sim", "1 robot/head, eager"
ROWS = (
    Row(
        "engine over a bare loop",
        "0.95",
        "embed",
        f"{BASE}/engine/engine_over_bare",
        "images/s from frames in memory to shards on disk, over `model(x)` in a loop on one batch of floats; "
        "above 1, because each core has a batch of its own and activations are laid out better",
        in_readme=True,
    ),
    Row(
        "the same, small encoder",
        "0.95",
        "embed",
        f"{SMALL}/engine/engine_over_bare",
        "`siglip2-tiny-sim`, for which turning bytes into floats is a part of the work that the loop has not",
    ),
    Row(
        "from PNG, over the slower part",
        "0.90",
        "embed",
        f"{BASE}/from_images/over_slower",
        "images/s from PNG on disk, over decoding alone or encoding alone, whichever is slower",
    ),
    Row("from mp4, over the slower part", "0.90", "embed", f"{BASE}/from_mp4/over_slower", "likewise"),
    Row(
        "from PNG of 480 x 640",
        "0.90",
        "embed",
        f"{BASE}/from_images_480x640/over_slower",
        "likewise; resizing is a part of decoding",
    ),
    Row("from mp4 of 480 x 640", "0.90", "embed", f"{BASE}/from_mp4_480x640/over_slower", "likewise"),
    Row(
        "small encoder, from PNG",
        "0.90",
        "embed",
        f"{SMALL}/from_images/over_slower",
        "decoder and encoder need the same cores; both together cannot be quicker than one after the other, "
        "see the next row",
    ),
    Row(
        "over one after the other",
        "",
        "embed",
        f"{SMALL}/from_images/over_one_after_the_other",
        "the same run, over decoding first and encoding then",
    ),
    Row("small encoder, from mp4", "0.90", "embed", f"{SMALL}/from_mp4/over_slower", "likewise"),
    Row(
        "over one after the other",
        "",
        "embed",
        f"{SMALL}/from_mp4/over_one_after_the_other",
        "likewise",
    ),
    Row(
        "memory, 4 times the frames",
        "1 x",
        "embed",
        "scaling/largest_over_smallest_memory",
        "the most that the process of `vla embed` took, for the largest of three datasets over the smallest",
        times,
    ),
    Row(
        "time of a further frame",
        "1 x",
        "embed",
        "scaling/late_over_early",
        "from the second size to the third, over from the first to the second; 1 is linear",
        times,
    ),
    Row(
        "SigLIP2-base, images/s",
        "",
        "embed",
        f"{BASE}/engine/images_per_s",
        "256 x 256 pixels; 46.9 GFLOP an image in the literature, counted here without what is not a product",
        "{:,.4g}".format,
        in_readme=True,
    ),
    Row(
        "share of the matrix product's rate",
        "",
        "embed",
        f"{BASE}/compute/share_of_matrix_product",
        "FLOP/s of the engine, over those of one large matrix product on the same device",
        percent,
    ),
    Row(
        "step, over a fixed batch",
        "at most 1.05",
        "train",
        "step/over_fixed_batch",
        "a training step from the cache, over the same step on one batch that lies on the device already",
        in_readme=True,
    ),
    Row(
        "data loading in a step",
        "at most 2 %",
        "train",
        "step/dataloading_share",
        "share of its time",
        percent,
    ),
    Row(
        "from the cache, over from images",
        "",
        "train",
        "from_images/factor",
        "samples/s against the same policy with decoder and SigLIP2-base in the loop",
        times,
        in_readme=True,
    ),
    Row(
        "cache on disk, over in memory",
        "",
        "train",
        "from_disk/share_of_in_memory_rate",
        "samples/s, with not one page of the cache in memory when a step begins",
        in_readme=True,
    ),
    Row(
        "50,000 steps of 256",
        "",
        "train",
        "compiled/eager/minutes_for_50000_steps",
        "eager",
        minutes,
        gpu_only=True,
    ),
    Row(
        "50,000 steps, CUDA graphs",
        "10 min",
        "train",
        "compiled/graphs/minutes_for_50000_steps",
        "`train.compile=graphs`",
        minutes,
        gpu_only=True,
        in_readme=True,
    ),
    Row(
        "50,000 steps, CUDA graphs and TF32",
        "10 min",
        "train",
        "compiled/graphs, tf32/minutes_for_50000_steps",
        "and `train.matmul_precision=high`",
        minutes,
        gpu_only=True,
    ),
    Row(
        "encode 3 views",
        "",
        "latency",
        f"1 robot/{BASE}, eager/encode_ms",
        "SigLIP2-base, one robot, the newest observation",
        milliseconds,
    ),
    Row(
        "encode 3 views, CUDA graphs",
        "",
        "latency",
        f"1 robot/{BASE}, graphs/encode_ms",
        "`encoder.compile=graphs`; with the head under 10 ms",
        milliseconds,
        gpu_only=True,
    ),
    Row(
        "one-step head",
        "",
        "latency",
        f"{HEAD}/imf, 1 step, ms",
        "from features to 16 actions, full-size policy, one robot",
        milliseconds,
        in_readme=True,
    ),
    Row(
        "one-step head, CUDA graphs",
        "2 ms",
        "latency",
        "1 robot/head, graphs/imf, 1 step, ms",
        "`rollout.compile=graphs`",
        milliseconds,
        gpu_only=True,
    ),
    Row(
        "10 steps of DDIM, over one of IMF",
        "",
        "latency",
        f"{HEAD}/ddim, 10 steps, times as long",
        "heads of the same size",
        times,
        in_readme=True,
    ),
    Row(
        "100 steps of DDIM, over one of IMF",
        "",
        "latency",
        f"{HEAD}/ddim, 100 steps, times as long",
        "likewise",
        times,
    ),
    Row(
        "parallel, over one through Gymnasium",
        "1.7 x",
        "rollout",
        "parallel_over_plain",
        "episodes/s, over one environment whose `step` renders every observation, as a script that knows "
        "Gymnasium only drives it",
        times,
        in_readme=True,
    ),
    Row(
        "over one that renders what is seen",
        "1.7 x",
        "rollout",
        "parallel_over_serial",
        "over one environment that skips, as `vla` does, the six of eight observations that no policy looks "
        "at, and renders and encodes with all cores",
        times,
    ),
    Row(
        "over cores that never wait",
        "",
        "rollout",
        "parallel_over_ideal",
        "over an environment on each core, had each the machine to itself: the most that can be had",
        cpu_only=True,
    ),
)
TITLES = {
    "embed": "`vla embed`",
    "train": "`vla train`",
    "latency": "A decision",
    "rollout": "`vla rollout`",
}
