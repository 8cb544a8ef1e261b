"""Calls over SIP trunks: PJSIP (`pjsip/`, the only place that knows threads) below, plain rules above."""
