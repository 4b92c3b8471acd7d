"""`vla serve`: the policy behind a socket."""

import sys
from typing import Annotated

import typer

from vla.commands.options import (
    Assign,
    Checkpoint,
    Config,
    Device,
    Encoder,
    Json,
    NumSteps,
    Policy,
    Revision,
    Task,
    show,
)


def serve(
    policy: Policy,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="8000 by default; 0 takes a free one.")] = None,
    task: Task = None,
    num_steps: NumSteps = None,
    revision: Revision = None,
    checkpoint: Checkpoint = None,
    encoder: Encoder = None,
    device: Device = None,
    config: Config = None,
    set_: Assign = None,
    json_: Json = False,
) -> None:
    """Serve a policy to robots in other processes, until Ctrl-C.

    Clients use vla.client.PolicyClient, which needs no torch. There is no password: other machines
    reach it only with --host. With --json the line on stdout comes when clients can connect.

    Example: vla serve runs/demo --port 8000
    """
    named = {
        "serve.host": host,
        "serve.port": port,
        "rollout.task": task,
        "rollout.num_steps": num_steps,
        "encoder.id": encoder,
        "encoder.device": device,
    }
    from vla.policy.sharing.hub import locate
    from vla.saved import policy_settings
    from vla.stages import serve as run

    def ready(facts: dict[str, object]) -> None:
        show(facts, json_)
        sys.stdout.flush()  # a process that started this one waits for the line

    folder = locate(policy, revision)
    settings = policy_settings(folder, named, set_ or [], config)
    run(settings, folder, ready, checkpoint=checkpoint)
