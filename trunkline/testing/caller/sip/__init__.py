"""A SIP caller in plain Python: an independent second implementation of the wire, to try the gateway with.

message, digest, sdp + dialog (one call's signalling) and rtp + stream (its audio) are plain cores; endpoint (signalling
sockets), sockets (audio) and call (one whole call) are the edges; setups and dialer serve `trunkline bench sip`.
"""
