/* REFERs from the far end, taken before PJSUA sees them: it would answer by itself, and call whom they name.
 *
 *   REFER ─► transaction layer ─► Refers (its transaction is ours) ─► a line for Python, an eventfd
 *   202, 403, ... ◄── answer() ◄─ take() ◄─ Python; or 500 after `wait_ms`, should Python say nothing
 *   NOTIFY ◄───────── notify(): in the dialog, but no request of the call's: a 481 to it must not end the call
 *
 * No callback takes the GIL. What is open at once is bounded; a REFER beyond is answered 503 at once, and counted.
 */
#ifndef TRUNKLINE_REFERS_HPP
#define TRUNKLINE_REFERS_HPP

#include <string>

namespace trunkline {

class Refers {
public:
    /* After libInit; one in a process. */
    Refers();
    ~Refers();

    /* `event_fd` is written whenever there is news. 0, or a PJLIB status. */
    int start(int event_fd, unsigned wait_ms);

    /* What is open is answered, what comes is refused. Before libDestroy. */
    void stop();

    /* Since the last call, one line each, in order:
     *   asked TAB id TAB call TAB cseq TAB 0 or 1 (Refer-Sub: false) TAB Refer-To
     *   told TAB id TAB status       of a NOTIFY of that REFER: the answer to it, or PJSIP's own 408 or 503
     * Refer-To is empty unless there was exactly one. */
    std::string news();

    /* Whether it is still to be answered, and then by nobody else. At once, from any thread. */
    bool take(unsigned id);

    /* One that was taken. `headers`: "Name: value" lines. */
    void answer(unsigned id, int status, const std::string &reason, const std::string &headers);

    /* `named`: not the call's first REFER, so Event has its id (RFC 3515 2.4.6). 0, or a PJLIB status. */
    int notify(unsigned id, int call, unsigned cseq, bool named, const std::string &state, const std::string &line);

    /* The call whose dialog has these two tags, whichever end's; -1. */
    int call_of(const std::string &call_id, const std::string &one_tag, const std::string &other_tag);

    /* too_many late */
    std::string counters();
};

}  // namespace trunkline
#endif
