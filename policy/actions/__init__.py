"""Forms of actions: what a policy learns instead of the numbers that a robot is sent.

A new form is a file here, or a plugin, with a config that extends `ActionsConfig`; nothing lists them.
"""
