"""STIR/SHAKEN: who vouches for a caller's number, and how we vouch for ours.

    Identity header ─► identity ─► token ─► verify.read ─► (client: the certificate) ─► verify.judge ─► CallerVerdict

Everything but `client` is plain rules over values and `now`. RFC 8224 (Identity), 8225 (PASSporT), 8226 (certificates),
8588 (shaken), 8946 (div), 9795 (rcd).
"""
