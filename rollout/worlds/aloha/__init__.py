"""ALOHA's simulated tasks, from the package gym-aloha, with a scripted expert."""
