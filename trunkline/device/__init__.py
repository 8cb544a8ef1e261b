"""`trunkline device`: the reference device. It listens here for its wake word, and sends audio only after it.

`machine`, `playback`, `timers` and `rates` are plain; `running` joins them to the edges: `sound` (microphone and
loudspeaker, or files), `link` and `access` (the gateway), `offline` (the agent that answers where there is none).
"""
