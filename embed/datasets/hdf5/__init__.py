"""Folders of HDF5 episodes, as ACT, ALOHA and RoboIMI write them."""
