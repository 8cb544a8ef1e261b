"""PJSIP under the SIP desk: the only folder that knows pjsua2, and the only place that knows threads.

    loop thread      commands ──► queue ──► owner thread ──► PJSUA            (makeCall, answer, hangup: they may block)
    PJSIP's threads  callbacks ──► call_soon_threadsafe ──► on_event          (they only post)
    C++ clock thread ──► rings ──► eventfd ──► one read of all lines a tick   (bridge.hpp; never takes the GIL)

`stack` is the `stack.Stack` the desk has; `owner` is the thread, and the ways between it, PJSIP's threads and the loop;
`call` and `account` are what PJSIP calls back; `lines` is the audio; `refers` and `registrations` are what else PJSIP
is led through; `config` is how it is set up.

Two builds are known (`build`). Ours (native/pjsua2, `make pjsip`) has the Bridge and the Front. The published wheel has
neither: audio then crosses in Python callbacks (`published`), four calls at most, and peers are judged after PJSIP has
answered 100.
"""
