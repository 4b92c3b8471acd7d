"""Two arms hand over a box, in MuJoCo: scene, physics, environment, expert."""
