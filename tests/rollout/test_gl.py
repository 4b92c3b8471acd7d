"""The choice of a headless renderer."""

import numpy as np
import pytest

from vla.base.errors import EnvironmentSetupError
from vla.rollout.worlds import gl
from vla.rollout.worlds.sim_transfer.env import SimTransferEnv

NOWHERE = {"egl": ("libNoSuchEGL.so.1",), "osmesa": ("libNoSuchMesa.so.8",)}


def test_the_users_backend_is_respected() -> None:
    assert gl.choose_backend("glfw") == "glfw"
    assert gl.choose_backend("disable") == "disable"


def test_the_first_backend_whose_libraries_load_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "HEADLESS_LIBRARIES", {**NOWHERE, "osmesa": ("libc.so.6",)})
    assert gl.choose_backend(None) == "osmesa"


def test_without_any_library_rendering_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "HEADLESS_LIBRARIES", NOWHERE)
    assert gl.choose_backend(None) == "disable"
    assert gl.choose_backend("") == "disable"


def test_asking_for_a_backend_without_libraries_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "HEADLESS_LIBRARIES", NOWHERE)
    with pytest.raises(
        EnvironmentSetupError, match=r"MUJOCO_GL=egl .*libNoSuchEGL.*apt-get install.*libegl1"
    ):
        gl.choose_backend("egl")


def test_physics_works_without_opengl_and_rendering_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = SimTransferEnv(render_height=32, render_width=32)
    env.render_observations = False
    env.reset(seed=0)
    env.step(np.zeros(16))
    with pytest.raises(EnvironmentSetupError, match="apt-get install --no-install-recommends libegl1 libgl1"):
        env.observe()
    env.close()
