"""What redaction costs of a call: python bench/privacy.py [--json].

A minute of a call: ten turns of both sides, each shown live four times a second while it is spoken, then written.
"""

import json
import sys
import time

from trunkline.live import Heard, Saying
from trunkline.privacy.calls import RedactedFollowing, Speakers
from trunkline.privacy.redaction import KINDS, Policy

PLAIN = "hello, I would like to move my appointment to another day if that is possible please"
CALLER = "I would like to move my appointment, my number is four one five five five five oh one three four thanks"
AGENT = "Of course. I have you down for Tuesday the 12th at 10:30 with Dr. Smith, shall I move it to Thursday at 9?"
TURNS_A_MINUTE, TOLD_A_TURN, ROUNDS = 10, 12, 200


def minute(policy: Policy, *, live: bool) -> None:
    speakers, tell = Speakers(policy), RedactedFollowing(policy).before(lambda told: None)
    for turn in range(TURNS_A_MINUTE):
        caller = PLAIN if turn % 3 else CALLER  # a number in every third turn
        if live:
            for part in range(1, TOLD_A_TURN + 1):
                so_far = caller[: len(caller) * part // TOLD_A_TURN]
                tell(Heard(so_far, final=part == TOLD_A_TURN))
                tell(Saying(AGENT, len(AGENT) * part // TOLD_A_TURN, over=part == TOLD_A_TURN))
        speakers.caller.whole(caller)
        speakers.agent.whole(AGENT)


def main() -> None:
    figures = {}
    default, every = Policy(frozenset(("card", "ssn", "iban"))), Policy(frozenset(KINDS))
    for name, policy, live in (
        ("record", default, False),
        ("record_and_live", default, True),
        ("record_of_every_kind", every, False),
        ("record_and_live_of_every_kind", every, True),
    ):
        began = time.process_time()
        for _ in range(ROUNDS):
            minute(policy, live=live)
        took_s = (time.process_time() - began) / ROUNDS
        figures[f"{name}_ms_a_minute"] = round(took_s * 1000, 2)
        figures[f"{name}_percent_of_a_core"] = round(took_s / 60 * 100, 4)
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        print(", ".join(f"{name} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
