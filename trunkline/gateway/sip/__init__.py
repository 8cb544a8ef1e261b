"""Calls over SIP trunks: PJSIP (`pjsip.py`, the only place that knows threads) below, plain rules above."""
