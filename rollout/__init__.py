"""Policies and experts in a world.

    worlds    simulated tasks, each with its expert; how any environment is made to fit
    record    demonstrations
    encoders  trunks of a trained policy as a frozen encoder
    live      a policy together with its encoder
    evaluate  rollouts side by side, and what came of them
    serve     a live policy behind a websocket
    export    a live policy as one ONNX graph

Importing this makes the environments of `rollout/worlds` known to Gymnasium. A simulator is imported when the
first of its environments is made.
"""

from vla.rollout.worlds import import_worlds

import_worlds()
