"""The carrier's and the caller's side of a call: `place_call` and `bench_twilio` (commands.py), and their parts.

carrier (Twilio's half of a stream) + script (what the caller does) + turns (what is measured) = line (one call, a plain
core). An edge drives a line: client (one call), bulk (hundreds). webhook posts what Twilio posts and reads TwiML.
"""
