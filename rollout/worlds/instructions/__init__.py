"""A hand takes one of four objects to one of two pads, in MuJoCo; only the instruction says which."""
