"""One demonstration through a policy's eyes: camera frames, features over time, predicted chunks."""

import base64
import html
import io
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vla.base.errors import VlaError
from vla.cache import ACTION, Episode, FeatureCache
from vla.embed.datasets import open_source
from vla.embed.datasets.dataset_config import dataset_of
from vla.policy.agents.answering import answer_for
from vla.policy.agents.policy import load_policy
from vla.policy.random import RowRandom
from vla.policy.windows import Windows, split_episodes
from vla.report.charts import Series, absent, line_chart
from vla.report.page import Section, card, grid

SHOWN_ACTIONS, CHUNKS, JPEG_WIDTH = 4, 6, 320


def choose_episode(cache: FeatureCache, val_episodes: int) -> Episode:
    """Return the first held-out episode, or the first one where none was held out."""
    episodes = cache.metadata.episodes
    held_out = split_episodes(len(episodes), val_episodes)[1] if val_episodes < len(episodes) else []
    return episodes[held_out[0] if held_out else 0]


def frames_section(cache: FeatureCache, episode: Episode) -> Section:
    """Show each camera at the start, the middle and the end of an episode."""
    try:
        # This episode alone: of a dataset on the Hub no more is downloaded.
        dataset = dataset_of(cache)
        source = open_source(dataset.model_copy(update={"episodes": (episode.index,)}))
        rows = ""
        for share, word in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
            number = round(share * (episode.length - 1))
            block = next(iter(source.read(range(number, number + 1), 1)))
            figures = ""
            for camera in source.camera_names:
                name, picture = html.escape(camera), _jpeg(Image.fromarray(block.streams[camera][0]))
                figures += (
                    f'<figure><img alt="{name}" src="{picture}">'
                    f"<figcaption>{name}, {word}</figcaption></figure>"
                )
            rows += grid(figures, kind="shots")
    except (VlaError, OSError, StopIteration) as error:
        return Section(title="Cameras", body=absent(f"The demonstrations cannot be read any more: {error}"))
    note = f"Episode {episode.index} of {cache.metadata.dataset.path}: {episode.task}"
    return Section(title="Cameras", body=rows, note=note)


def features_section(cache: FeatureCache, episode: Episode) -> Section:
    """Draw the first principal components along an episode of each stream that an encoder wrote as tokens."""
    frames = torch.arange(episode.first_frame, episode.first_frame + episode.length)
    cards = []
    for name in (stream.name for stream in cache.metadata.streams if stream.kind == "tokens"):
        features = cache.rows(name, frames).float().mean(dim=1)
        scores, shares = principal_components(features, 3)
        series = [
            Series(label=f"PC{k + 1}, {100 * share:.0f} %", x=list(range(episode.length)), y=column.tolist())
            for k, (share, column) in enumerate(zip(shares, scores.T, strict=True))
        ]
        cards.append(card(name, line_chart(series, x_label="frame", y_label=f"features of {name}")))
    if not cards:
        return Section(title="Features", body=absent("The cache holds no features of an encoder."))
    note = "Frozen features over one episode; the share of their variance beside each component."
    return Section(title="Features", body=grid(*cards), note=note)


def principal_components(
    features: Float[Tensor, "frames dim"], count: int
) -> tuple[Float[Tensor, "frames k"], list[float]]:
    """Project features onto their first principal components.

    Returns:
        Scores of at most `count` components, and each one's share of the variance.
    """
    centred = features - features.mean(dim=0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    shares = s.square() / s.square().sum().clamp_min(1e-12)
    return u[:, :count] * s[:count], shares[:count].tolist()


def chunks_section(cache: FeatureCache, episode: Episode, folder: Path) -> Section:
    """Draw predicted actions over the demonstrated ones, for the dimensions that move most."""
    policy = load_policy(folder)
    known = {made.fingerprint: made.cache for made in policy.config.data if made.action is not None}
    answer_for(policy, known.get(cache.metadata.fingerprint, ""))
    horizons = policy.horizons
    windows = Windows(
        cache,
        horizons,
        policy.observes,
        device=torch.device("cpu"),
        resident=False,
        texts=bool(policy.tasks),
        read=policy.read_tasks,
    )
    action = cache.all(ACTION)[episode.first_frame : episode.first_frame + episode.length]
    starts = torch.linspace(0, max(0, episode.length - horizons.num_action_steps), CHUNKS).long().unique()
    batch = windows.batch(episode.first_frame + starts)
    random = RowRandom(torch.Generator().manual_seed(0))
    chunks, _ = policy.act(batch.observation, random=random)
    cards = []
    for dim in sorted(action.std(dim=0).argsort(descending=True)[:SHOWN_ACTIONS].tolist()):
        series = [Series(label="demonstration", x=list(range(episode.length)), y=action[:, dim].tolist())]
        for start, chunk in zip(starts.tolist(), chunks, strict=True):
            steps = list(range(start, min(start + len(chunk), episode.length)))
            label = "" if len(series) > 1 else "predicted chunks"
            series.append(Series(label=label, x=steps, y=chunk[: len(steps), dim].tolist(), colour=1))
        title = f"action {dim}"
        cards.append(card(title, line_chart(series, x_label="frame", y_label=title)))
    note = f"The {horizons.num_action_steps} actions that would be executed at {len(starts)} frames of "
    note += f"episode {episode.index}; the dimensions that move most."
    return Section(title="Action chunks against the demonstration", body=grid(*cards), note=note)


def _jpeg(image: Image.Image) -> str:
    if image.width > JPEG_WIDTH:
        image = image.resize((JPEG_WIDTH, round(image.height * JPEG_WIDTH / image.width)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
