"""Run by tests/vla/test_distributed.py under torchrun: `vla`, with the compiler's quick backend for training.

torchrun --nproc-per-node 2 compiled_train.py train --set train.compile=on …
"""

import functools
from unittest import mock

from vla.cli import main
from vla.compiling import compile_module

if __name__ == "__main__":
    quick = functools.partial(compile_module, backend="aot_eager")
    with mock.patch("vla.policy.train.compile_module", quick):
        main()
