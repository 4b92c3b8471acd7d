"""Choose how MuJoCo renders without a display, then import MuJoCo.

MuJoCo reads `MUJOCO_GL` once, while it is imported, and with `egl` but no libEGL that import itself
dies, physics and all. So every module of this room takes MuJoCo from here:

    from vla.rollout.worlds.gl import mujoco

A `MUJOCO_GL` that the user has set is respected. On Linux without one, the first backend whose
libraries load is taken; where none does, physics still works and only rendering is refused.
"""

import ctypes
import os
import sys

from vla.base.errors import EnvironmentSetupError

HEADLESS_LIBRARIES = {
    # libEGL alone is not enough: PyOpenGL opens libGL for the functions themselves.
    "egl": ("libEGL.so.1", "libGL.so.1"),
    "osmesa": ("libOSMesa.so.8",),
}
HOW_TO_RENDER = "run: sudo apt-get install --no-install-recommends libegl1 libgl1"


def choose_backend(asked: str | None) -> str:
    """Return the value for `MUJOCO_GL` on Linux.

    Args:
        asked: the value that the user has set, if any.

    Raises:
        EnvironmentSetupError: the user asked for a backend whose libraries are missing.
    """
    if not asked:
        return next((name for name in HEADLESS_LIBRARIES if not _missing_libraries(name)), "disable")
    missing = _missing_libraries(asked.lower())
    if missing:
        raise EnvironmentSetupError(
            f"MUJOCO_GL={asked} is set, but {missing[0]} cannot be loaded; "
            f"unset MUJOCO_GL; if EGL is missing as well, {HOW_TO_RENDER}"
        )
    return asked


def _missing_libraries(backend: str) -> list[str]:
    missing = []
    for name in HEADLESS_LIBRARIES.get(backend, ()):
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    return missing


def backend() -> str:
    """Return the backend in use: `egl`, `osmesa`, `disable`, or `default` where MuJoCo chose its own."""
    return os.environ.get("MUJOCO_GL", "default").lower()


def require_rendering() -> None:
    """Refuse to go on where nothing can be rendered.

    Raises:
        EnvironmentSetupError: there is no OpenGL; the message says how to install it.
    """
    if backend() == "disable":
        raise EnvironmentSetupError(
            "camera images need OpenGL, and MUJOCO_GL is 'disable': it was set so, or neither EGL nor OSMesa "
            f"could be loaded; {HOW_TO_RENDER}"
        )


# Where MuJoCo was imported before, its choice is made and stands.
if sys.platform.startswith("linux") and "mujoco" not in sys.modules:
    os.environ["MUJOCO_GL"] = choose_backend(os.environ.get("MUJOCO_GL"))

import mujoco  # noqa: E402  the choice above must come first

__all__ = ["HOW_TO_RENDER", "backend", "choose_backend", "mujoco", "require_rendering"]
