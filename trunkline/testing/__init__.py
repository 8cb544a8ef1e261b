"""Public test doubles: the manual clock, stand-in providers, the carrier's side of a call."""
