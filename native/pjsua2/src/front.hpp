/* What stands before PJSUA: every request passes here first, before it costs a transaction.
 *
 * Out-of-dialog requests must come from a trunk's network, within the rate, and show the trunk's digest where it has
 * one; INVITEs also meet the 503 of a gateway that is full. Strangers get nothing, or one uniform answer. Requests of
 * calls that we know (Call-ID and To tag) pass from the networks of the call's trunk and from where the call was sent to;
 * from elsewhere they get nothing. And it keeps the ladder: which messages each call consisted of.
 */
#ifndef TRUNKLINE_FRONT_HPP
#define TRUNKLINE_FRONT_HPP

#include <string>

namespace trunkline {

class Front {
public:
    /* After libInit; one in a process. */
    Front();
    ~Front();

    /* Before libCreate, which would print what it does. */
    static void quiet();

    /* Registers the module. 0, or a PJLIB status. */
    int start();

    /* One line per peer: CIDR TAB trunk TAB account TAB username TAB password (both empty: no digest) TAB algorithms, in
     * the order they are offered, with commas between (SHA-256, MD5). Replaces all. */
    void trunks(const std::string &table);

    /* Out-of-dialog requests a second, in all and per source address. */
    void rates(unsigned per_s, unsigned per_source_per_s);

    /* What strangers get: 0 nothing, else this status, statelessly. */
    void strangers(int status);

    /* Whether new INVITEs are let through; else 503 with Retry-After. */
    void accept(bool calls, unsigned retry_after_s);

    /* Before a call of ours: by which trunk it goes. */
    void dialled(const std::string &call_id, const std::string &trunk);

    /* The trunk an INVITE came by, or goes; empty for a Call-ID we do not know. */
    std::string trunk_of(const std::string &call_id);

    /* One line per message: at_ms TAB in|out TAB what TAB cseq TAB peer TAB repeated. Forgets the call. */
    std::string ladder(const std::string &call_id);

    /* strangers over_rate bad_digest full malformed muted */
    std::string counters();

    /* What is worth a log line since the last call, one a line; bounded, the rest is counted. */
    std::string notes();
};

}  // namespace trunkline
#endif
