"""Trunkline: the phone line for AI agents. Importing this does nothing; `trunkline.app` wires the rooms."""

__version__ = "0.1.0"
