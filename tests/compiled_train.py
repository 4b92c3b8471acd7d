"""Run by tests/vla/test_distributed.py under torchrun: `vla`, with the compiler's quick backend for training.

torchrun --nproc-per-node 2 compiled_train.py train --set train.compile=on …
"""

import functools
from unittest import mock

from vla.base.compiling import compile_module
from vla.cli import main

if __name__ == "__main__":
    quick = functools.partial(compile_module, backend="aot_eager")
    with mock.patch("vla.policy.training.trainer.compile_module", quick):
        main()
