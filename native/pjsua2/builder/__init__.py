"""How the wheel is made: keys, then the source, then PJSIP compiled, then our extension on top of it.

Standard library only: it runs in a venv that may hold nothing yet.
"""
