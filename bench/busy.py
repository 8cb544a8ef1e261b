"""`python bench/busy.py 0.9 serve ...`: a gateway in whose process another Python thread is busy that share of time,
in bursts of 10 ms. What the callers hear must not change: the media clock is not Python's."""

import sys
import threading
import time

from trunkline.cli import main

BURST_S = 0.010


def burn(share: float) -> None:
    while True:
        until = time.thread_time() + BURST_S
        while time.thread_time() < until:
            sum(range(200))
        time.sleep(BURST_S * (1 - share) / share)


if __name__ == "__main__":
    threading.Thread(target=burn, args=(float(sys.argv[1]),), daemon=True).start()
    main(sys.argv[2:])
