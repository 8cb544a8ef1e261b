#include "front.hpp"

#include <pjlib-util.h>
#include <pjlib.h>
#include <pjsip.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

#include <ctype.h>
#include <strings.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "network.hpp"

namespace trunkline {
namespace {

constexpr size_t MAX_CALLS = 4096, MAX_STEPS = 200, MAX_SOURCES = 4096, MAX_NOTES = 200, MAX_NOTE = 300;
constexpr int64_t NONCE_MS = 60'000;                 // then a fresh one is asked for (stale=true)
constexpr unsigned FREE_FAILURES = 4;                // wrong digests before a source is muted, for 2, 4, 8 ... seconds
constexpr int64_t MUTE_MS = 2'000, MUTE_MAX_MS = 300'000, FORGIVE_MS = 3'600'000;
constexpr unsigned ANSWERED_OVER_RATE = 50;          // a second; what is beyond gets no answer either
constexpr size_t MAX_CALL_ID = 256, MAX_NONCES = 65536;
constexpr size_t MAX_STRANGE_CONNECTIONS = 32;       // a dialog's proxy may be no peer; nobody else needs one
constexpr unsigned FIRST_WORD_S = 10, PEER_WORD_S = 600;  // a connection that says nothing for so long is closed
constexpr int64_t NOTE_RATE_MS = 60'000;
constexpr size_t MAX_ADDRESSES = 8;                  // of one call

int64_t now_ms() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000LL + t.tv_nsec / 1'000'000;
}

std::string text(const pj_str_t &from) { return std::string(from.ptr, size_t(from.slen)); }

struct Peer {
    Network network;
    std::string trunk, username, password;
    int account;
    std::vector<pjsip_auth_algorithm_type> algorithms;
};

struct Step {
    int64_t at_ms;
    bool inbound;
    std::string what, cseq, peer;
    unsigned repeated;
};

struct Traced {
    int64_t began_ms;
    std::string trunk;
    int account = -1;
    int64_t invite_cseq = -1;                        // of the INVITE that was let in, and where it came from
    std::string invite_source;
    std::vector<Address> addresses;                  // where its INVITE says it is, and where requests of ours went
    std::vector<Step> steps;
    bool over = false;                               // no call any more: its ladder is for whoever still asks
    std::list<std::string>::iterator age;            // in `ages`, or in `done`
};

struct Bucket {
    double tokens;
    int64_t at_ms;
    bool take(double rate, int64_t now) {
        tokens = std::min(rate, tokens + rate * double(now - at_ms) / 1000);
        at_ms = now;
        if (tokens < 1) return false;
        tokens -= 1;
        return true;
    }
};

struct Guessing {
    unsigned failures = 0;
    int64_t last_ms = 0, muted_until_ms = 0;
};

struct State {
    std::mutex mutex;
    std::vector<Peer> peers;
    double per_s = 1e9, per_source_per_s = 1e9;
    int stranger_status = 0;
    bool accepting = true;
    unsigned retry_after_s = 30;
    std::unordered_map<std::string, Traced> calls;   // by Call-ID
    std::list<std::string> ages, done;               // oldest first
    Bucket all{0, 0}, answered{ANSWERED_OVER_RATE, 0};
    std::unordered_map<std::string, Bucket> sources;
    std::unordered_map<std::string, Guessing> guessing;
    std::unordered_set<std::string> strangers_noted;
    int64_t rate_noted_ms = -NOTE_RATE_MS;
    std::unordered_map<std::string, uint64_t> nonces;  // shown rightly, and the highest nc
    std::deque<std::string> nonce_ages;
    std::unordered_set<const pjsip_transport *> strange_connections;
    std::mutex notes_mutex;                          // of its own: PJSIP logs while we hold the other
    std::deque<std::string> notes;
    unsigned notes_dropped = 0;
    std::string secret;
    std::atomic<unsigned> strangers{0}, over_rate{0}, bad_digest{0}, full{0}, malformed{0}, muted{0};
    const Peer *asked = nullptr;                     // whose password is looked up, within verify
};
State *state = nullptr;

void note(const std::string &line) {
    std::lock_guard<std::mutex> guard(state->notes_mutex);
    if (state->notes.size() >= MAX_NOTES) {
        ++state->notes_dropped;
        return;
    }
    state->notes.push_back(line.substr(0, MAX_NOTE));
}

// --- the ladder

std::string what_is(const pjsip_msg *msg) {
    if (msg->type == PJSIP_REQUEST_MSG) return text(msg->line.req.method.name);
    return std::to_string(msg->line.status.code) + " " + text(msg->line.status.reason);
}

std::string clean(std::string value, size_t most = 100) {
    for (char &c : value)
        if (c < ' ' || c > '~') c = ' ';             // of a stranger, on its way to logs and records
    return value.substr(0, most);
}

void step(Traced &call, bool inbound, const pjsip_msg *msg, const pjsip_cseq_hdr *cseq, const std::string &peer) {
    const bool request = msg->type == PJSIP_REQUEST_MSG;
    const bool over = request ? msg->line.req.method.id == PJSIP_BYE_METHOD
                              : msg->line.status.code >= 300 && cseq && cseq->method.id == PJSIP_INVITE_METHOD;
    if (over && !call.over) {
        call.over = true;
        state->done.splice(state->done.end(), state->ages, call.age);
    }
    const std::string what = clean(what_is(msg));
    const std::string number = cseq ? std::to_string(cseq->cseq) + " " + clean(text(cseq->method.name)) : "";
    for (auto old = call.steps.rbegin(); old != call.steps.rend() && old - call.steps.rbegin() < 6; ++old) {
        if (old->inbound == inbound && old->what == what && old->cseq == number && old->peer == peer) {
            ++old->repeated;
            return;
        }
    }
    if (call.steps.size() < MAX_STEPS) call.steps.push_back({now_ms() - call.began_ms, inbound, what, number, peer, 0});
}

Traced &trace(const std::string &call_id) {          // with the mutex
    auto found = state->calls.find(call_id);
    if (found != state->calls.end()) return found->second;
    if (state->calls.size() >= MAX_CALLS) {          // not those that still talk, if it can be helped
        std::list<std::string> &oldest = state->done.empty() ? state->ages : state->done;
        state->calls.erase(oldest.front());
        oldest.pop_front();
    }
    Traced &call = state->calls[call_id];
    call.began_ms = now_ms();
    call.age = state->ages.insert(state->ages.end(), call_id);
    return call;
}

std::string peer_of(const pjsip_rx_data *rdata) {
    std::string type = rdata->tp_info.transport ? rdata->tp_info.transport->type_name : "";
    for (char &c : type) c = char(tolower(c));
    return type + " " + rdata->pkt_info.src_name + ":" + std::to_string(rdata->pkt_info.src_port);
}

// --- digest

std::string nonce_for(int64_t at_ms, const std::string &source, const std::string &trunk) {
    const std::string message = std::to_string(at_ms) + "|" + source + "|" + trunk;
    pj_uint8_t digest[20];
    pj_hmac_sha1(reinterpret_cast<const pj_uint8_t *>(message.data()), unsigned(message.size()),
                 reinterpret_cast<const pj_uint8_t *>(state->secret.data()), unsigned(state->secret.size()), digest);
    char hex[41];
    for (int i = 0; i < 20; ++i) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return std::to_string(at_ms) + "." + hex;
}

enum class Nonce { fresh, stale, unknown };

Nonce judge_nonce(const std::string &nonce, const std::string &source, const std::string &trunk) {
    const int64_t at = strtoll(nonce.c_str(), nullptr, 10);
    if (nonce != nonce_for(at, source, trunk)) return Nonce::unknown;
    return now_ms() - at < NONCE_MS ? Nonce::fresh : Nonce::stale;
}

pj_status_t look_up(pj_pool_t *pool, const pjsip_auth_lookup_cred_param *param, pjsip_cred_info *credentials) {
    const Peer *peer = state->asked;
    if (!peer || text(param->acc_name) != peer->username) return PJSIP_EAUTHACCNOTFOUND;
    pj_bzero(credentials, sizeof(*credentials));
    pj_strdup(pool, &credentials->realm, &param->realm);
    pj_strdup2(pool, &credentials->username, peer->username.c_str());
    pj_strdup2(pool, &credentials->data, peer->password.c_str());
    credentials->scheme = pj_str(const_cast<char *>("digest"));
    credentials->data_type = PJSIP_CRED_DATA_PLAIN_PASSWD;
    return PJ_SUCCESS;
}

struct Given {
    std::string nonce;
    uint64_t count = 0;                              // nc; 1 without
    pj_str_t uri = {nullptr, 0};
    const pjsip_auth_algorithm *algorithm = nullptr;
};

Given given(const pjsip_msg *msg, const pj_str_t &realm) {
    const pjsip_hdr *header = nullptr;
    const void *from = nullptr;
    while ((header = static_cast<const pjsip_hdr *>(pjsip_msg_find_hdr(msg, PJSIP_H_AUTHORIZATION, from)))) {
        const pjsip_authorization_hdr *auth = reinterpret_cast<const pjsip_authorization_hdr *>(header);
        if (!pj_stricmp2(&auth->scheme, "digest") && !pj_stricmp(&auth->credential.digest.realm, &realm))
            return {text(auth->credential.digest.nonce),
                    auth->credential.digest.nc.slen ? strtoull(text(auth->credential.digest.nc).c_str(), nullptr, 16) : 1,
                    auth->credential.digest.uri,
                    pjsip_auth_get_algorithm_by_iana_name(&auth->credential.digest.algorithm)};
        if (header->next == &msg->hdr) break;
        from = header->next;
    }
    return {};
}

// A right answer is right once (RFC 7616 5.12): who overheard it could dial with it as well.
bool is_replay(const Given &given) {                 // with the mutex
    const auto found = state->nonces.find(given.nonce);
    if (found != state->nonces.end()) {
        if (given.count <= found->second) return true;
        found->second = given.count;
        return false;
    }
    if (state->nonces.size() >= MAX_NONCES) {
        state->nonces.erase(state->nonce_ages.front());
        state->nonce_ages.pop_front();
    }
    state->nonces.emplace(given.nonce, given.count);
    state->nonce_ages.push_back(given.nonce);
    return false;
}

// RFC 7616 3.4.6: credentials are for one request; overheard, they must not be good for another number.
bool is_this_uri(pjsip_rx_data *rdata, const pj_str_t &uri) {
    pj_str_t copy;
    pj_strdup_with_null(rdata->tp_info.pool, &copy, &uri);
    pjsip_uri *shown = pjsip_parse_uri(rdata->tp_info.pool, copy.ptr, size_t(copy.slen), 0);
    return shown && pjsip_uri_cmp(PJSIP_URI_IN_REQ_URI, pjsip_uri_get_uri(shown),
                                  pjsip_uri_get_uri(rdata->msg_info.msg->line.req.uri)) == PJ_SUCCESS;
}

bool offers(const Peer &peer, const pjsip_auth_algorithm *algorithm) {
    return algorithm && std::find(peer.algorithms.begin(), peer.algorithms.end(), algorithm->algorithm_type) !=
                            peer.algorithms.end();
}

enum class Shown { right, nothing, stale, wrong, other_uri };

Shown shown(pjsip_rx_data *rdata, const Peer &peer, pj_str_t realm) {  // with the mutex
    const Given what = given(rdata->msg_info.msg, realm);
    if (what.nonce.empty() || !offers(peer, what.algorithm)) return Shown::nothing;
    const Nonce age = judge_nonce(what.nonce, rdata->pkt_info.src_name, peer.trunk);
    if (age == Nonce::unknown) return Shown::nothing;
    pjsip_auth_srv server;
    pjsip_auth_srv_init_param param;
    pj_bzero(&param, sizeof(param));
    param.realm = &realm;
    param.lookup2 = &look_up;
    if (pjsip_auth_srv_init2(rdata->tp_info.pool, &server, &param) != PJ_SUCCESS) return Shown::wrong;
    int status = 0;
    state->asked = &peer;
    const bool right = pjsip_auth_srv_verify(&server, rdata, &status) == PJ_SUCCESS && status == 200;
    state->asked = nullptr;
    if (!right) return Shown::wrong;
    if (!is_this_uri(rdata, what.uri)) return Shown::other_uri;
    return age == Nonce::fresh && !is_replay(what) ? Shown::right : Shown::stale;
}

// --- answers without a transaction

void answer(pjsip_rx_data *rdata, int status, const char *name = nullptr, unsigned value = 0) {
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_ACK_METHOD) return;
    pjsip_hdr headers;
    pj_list_init(&headers);
    if (name) {
        pj_str_t header = pj_str(const_cast<char *>(name));
        char number[16];
        snprintf(number, sizeof(number), "%u", value);
        pj_str_t content = pj_str(number);
        pj_list_push_back(&headers, pjsip_generic_string_hdr_create(rdata->tp_info.pool, &header, &content));
    }
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, status, nullptr, name ? &headers : nullptr, nullptr);
}

void challenge(pjsip_rx_data *rdata, const Peer &peer, pj_str_t realm, bool stale) {
    pjsip_tx_data *response;
    if (pjsip_endpt_create_response(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_UNAUTHORIZED, nullptr, &response) !=
        PJ_SUCCESS)
        return;
    pjsip_auth_srv server;
    pjsip_auth_srv_init_param param;
    pj_bzero(&param, sizeof(param));
    param.realm = &realm;
    param.lookup2 = &look_up;
    const std::string nonce = nonce_for(now_ms(), rdata->pkt_info.src_name, peer.trunk);
    pj_str_t nonce_text = {const_cast<char *>(nonce.data()), pj_ssize_t(nonce.size())};
    pj_str_t qop = pj_str(const_cast<char *>("auth"));
    pjsip_auth_srv_init2(response->pool, &server, &param);
    for (const pjsip_auth_algorithm_type algorithm : peer.algorithms)  // the strongest first (RFC 8760 2.3)
        pjsip_auth_srv_challenge2(&server, &qop, &nonce_text, nullptr, stale, response, algorithm);
    pjsip_endpt_send_response2(pjsua_get_pjsip_endpt(), rdata, response, nullptr, nullptr);
}

// --- the judgement

const Peer *peer_for(const Address &source) {        // the longest prefix
    const Peer *best = nullptr;
    for (const Peer &peer : state->peers)
        if (peer.network.has(source) && (!best || peer.network.bits > best->network.bits)) best = &peer;
    return best;
}

// Whoever guesses a Call-ID must not hang up for others: the call's trunk may, and whom it was sent to.
bool may_speak(const Traced &call, const Address &source) {  // with the mutex
    const auto &sent_to = call.addresses;
    return std::find(sent_to.begin(), sent_to.end(), source) != sent_to.end() ||
           std::any_of(state->peers.begin(), state->peers.end(), [&](const Peer &peer) {
               return peer.trunk == call.trunk && peer.network.has(source);
           });
}

void add_address(Traced &call, const Address &address) {
    std::vector<Address> &known = call.addresses;
    if (address.known && known.size() < MAX_ADDRESSES && std::find(known.begin(), known.end(), address) == known.end())
        known.push_back(address);
}

// Whoever let the INVITE in vouches for its Contact and its proxies. Names are left to trunks' networks.
void add_addresses(Traced &call, const pjsip_msg *msg) {
    const auto add = [&call](const pjsip_uri *uri) {
        if (!uri || !(PJSIP_URI_SCHEME_IS_SIP(uri) || PJSIP_URI_SCHEME_IS_SIPS(uri))) return;
        add_address(call, Address::of(&static_cast<const pjsip_sip_uri *>(pjsip_uri_get_uri(uri))->host));
    };
    for (const pjsip_hdr *header = msg->hdr.next; header != &msg->hdr; header = header->next) {
        if (header->type == PJSIP_H_CONTACT) add(reinterpret_cast<const pjsip_contact_hdr *>(header)->uri);
        if (header->type == PJSIP_H_RECORD_ROUTE)
            add(reinterpret_cast<const pjsip_uri *>(&reinterpret_cast<const pjsip_rr_hdr *>(header)->name_addr));
    }
}

void note_stranger(const std::string &key, const std::string &name, const pjsip_msg *msg) {  // with the mutex
    ++state->strangers;
    if (state->strangers_noted.size() < MAX_SOURCES && state->strangers_noted.insert(key).second)
        note("stranger " + name + ": " + clean(what_is(msg)));
}

bool within_rate(const std::string &source, int64_t now) {
    auto found = state->sources.find(source);
    if (found == state->sources.end()) {
        if (state->sources.size() >= MAX_SOURCES) state->sources.clear();
        found = state->sources.emplace(source, Bucket{state->per_source_per_s, now}).first;
    }
    return found->second.take(state->per_source_per_s, now) && state->all.take(state->per_s, now);
}

void guessed_wrong(const std::string &source, const std::string &name, const Peer &peer, int64_t now) {
    if (state->guessing.size() >= MAX_SOURCES) state->guessing.clear();
    Guessing &guess = state->guessing[source];
    if (now - guess.last_ms > FORGIVE_MS) guess.failures = 0;
    guess.last_ms = now;
    if (++guess.failures > FREE_FAILURES) {
        const unsigned over = std::min(guess.failures - FREE_FAILURES - 1, 16u);
        guess.muted_until_ms = now + std::min(MUTE_MAX_MS, MUTE_MS << over);
        note("trunk " + peer.trunk + ": " + std::to_string(guess.failures) + " wrong passwords from " + name +
             "; not heard for " + std::to_string((guess.muted_until_ms - now) / 1000) + " s");
    }
}

// --- names in SDP

bool is_numeric(std::string address) {
    address = address.substr(0, address.find('/'));  // a multicast TTL
    return Address::of(address.c_str()).known;
}

// PJMEDIA would ask the C library for a host name in c= or a=rtcp, and all of SIP would wait for the answer. Whether one
// is there; `blank`: 0.0.0.0 takes its place, as on hold, and the far end's address is learnt from its RTP.
bool names_host(pjsip_rx_data *rdata, bool blank) {
    char *const end = rdata->msg_info.msg_buf + rdata->msg_info.len;
    bool found = false;
    if (!rdata->msg_info.msg->body) return false;
    for (char *line = rdata->msg_info.msg_buf; line < end;) {
        char *const stop = std::find_if(line, end, [](char c) { return c == '\r' || c == '\n'; });
        while (line < stop && isspace(static_cast<unsigned char>(*line))) ++line;
        const bool rtcp = stop - line > 7 && !strncasecmp(line, "a=rtcp:", 7);
        if (rtcp || (stop - line > 2 && line[0] == 'c' && line[1] == '=')) {
            // c=IN IP4 address; a=rtcp:port IN IP4 address
            int word = 0;
            for (char *at = line; at < stop; ++word) {
                char *const after = std::find_if(at, stop, [](unsigned char c) { return isspace(c); });
                if (word >= (rtcp ? 3 : 2) && after > at && !is_numeric(std::string(at, after))) {
                    found = true;
                    if (blank) {
                        const std::string any = after - at >= 7 ? "0.0.0.0" : "0";
                        std::fill(at, after, ' ');
                        std::copy(any.begin(), any.end(), at);
                    }
                }
                at = std::find_if_not(after, stop, [](unsigned char c) { return isspace(c); });
            }
        }
        line = stop + 1;
    }
    return found;
}

bool is_usable(const std::string &call_id) {
    return !call_id.empty() && call_id.size() <= MAX_CALL_ID &&
           std::all_of(call_id.begin(), call_id.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// --- within a call, what PJSUA would answer 500

bool is_type(const pjsip_msg_body *body, const char *subtype) {
    return !pj_stricmp2(&body->content_type.type, "application") && !pj_stricmp2(&body->content_type.subtype, subtype);
}

// One digit as application/dtmf becomes an application/dtmf-relay, which PJSUA reads.
bool relay_digit(pjsip_rx_data *rdata) {
    pjsip_msg_body *body = rdata->msg_info.msg->body;
    const char *given = static_cast<const char *>(body->data), *const end = given + body->len;
    given = std::find_if_not(given, end, [](unsigned char c) { return isspace(c); });
    if (given == end || !strchr("0123456789*#ABCD", toupper(static_cast<unsigned char>(*given))) || !*given) return false;
    char relayed[40];
    const int length = snprintf(relayed, sizeof(relayed), "Signal=%c\r\nDuration=160\r\n", *given);
    body->data = pj_pool_alloc(rdata->tp_info.pool, size_t(length));
    memcpy(body->data, relayed, size_t(length));
    body->len = unsigned(length);
    body->content_type.subtype = pj_str(const_cast<char *>("dtmf-relay"));
    return true;
}

// Keep-alives of PBXs are OPTIONS (RFC 3261 11) or INFO without a body (RFC 2976 2.2). True: answered.
bool answered_within_call(pjsip_rx_data *rdata) {
    const pjsip_msg *msg = rdata->msg_info.msg;
    const bool options = msg->line.req.method.id == PJSIP_OPTIONS_METHOD;
    if (!options && pj_strcmp2(&msg->line.req.method.name, "INFO")) return false;
    if (!rdata->msg_info.from || !pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag,
                                                       &rdata->msg_info.from->tag, PJ_FALSE))
        return false;                                // PJSIP says 481
    if (options || !msg->body || !msg->body->len) {
        answer(rdata, PJSIP_SC_OK);
        return true;
    }
    if (is_type(msg->body, "dtmf-relay") || (is_type(msg->body, "dtmf") && relay_digit(rdata))) return false;
    answer(rdata, PJSIP_SC_UNSUPPORTED_MEDIA_TYPE);
    return true;
}

// Of a transaction that is still answered, though its call is forgotten: a BYE whose 200 was lost.
bool is_repeated(pjsip_rx_data *rdata) {
    pj_str_t key;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS, &rdata->msg_info.cseq->method, rdata) !=
        PJ_SUCCESS)
        return false;
    pjsip_transaction *tsx = pjsip_tsx_layer_find_tsx2(&key, PJ_TRUE);
    if (tsx) pj_grp_lock_dec_ref(tsx->grp_lock);
    return tsx != nullptr;
}

// True: it goes no further.
pj_bool_t on_rx_request(pjsip_rx_data *rdata) {
    const pjsip_msg *msg = rdata->msg_info.msg;
    const pjsip_method_e method = msg->line.req.method.id;
    if (!rdata->msg_info.cid || !rdata->msg_info.to || !rdata->msg_info.cseq) return PJ_FALSE;
    const std::string call_id = text(rdata->msg_info.cid->id);
    const std::string source_name = rdata->pkt_info.src_name;
    const Address source = Address::of(rdata->pkt_info.src_name);
    const std::string source_key = source.key();
    const int64_t now = now_ms();
    const bool in_dialog = rdata->msg_info.to->tag.slen > 0;
    const int64_t cseq = int64_t(uint32_t(rdata->msg_info.cseq->cseq));
    const bool named = names_host(rdata, method == PJSIP_ACK_METHOD);

    std::unique_lock<std::mutex> guard(state->mutex);
    const auto known = state->calls.find(call_id);
    if (known != state->calls.end() &&
        (in_dialog || method == PJSIP_ACK_METHOD || method == PJSIP_CANCEL_METHOD ||
         (method == PJSIP_INVITE_METHOD && known->second.invite_cseq == cseq &&
          known->second.invite_source == source_key))) {
        if (!may_speak(known->second, source)) {
            note_stranger(source_key, source_name, msg);
            const bool connected = PJSIP_TRANSPORT_IS_RELIABLE(rdata->tp_info.transport) && !peer_for(source);
            guard.unlock();
            if (connected) pjsip_transport_shutdown(rdata->tp_info.transport);
            return PJ_TRUE;
        }
        step(known->second, true, msg, rdata->msg_info.cseq, peer_of(rdata));
        guard.unlock();
        if (in_dialog && answered_within_call(rdata)) return PJ_TRUE;
        if (named) answer(rdata, PJSIP_SC_NOT_ACCEPTABLE_HERE);
        return named && method != PJSIP_ACK_METHOD;
    }

    const Peer *peer = peer_for(source);
    if (!peer) {
        note_stranger(source_key, source_name, msg);
        const int status = state->stranger_status;
        const bool reply = status && state->answered.take(ANSWERED_OVER_RATE, now);
        guard.unlock();
        if (reply) answer(rdata, status);
        if (PJSIP_TRANSPORT_IS_RELIABLE(rdata->tp_info.transport)) pjsip_transport_shutdown(rdata->tp_info.transport);
        return PJ_TRUE;
    }
    if (method == PJSIP_ACK_METHOD) return PJ_FALSE;  // of an answer without a transaction: PJSIP drops it
    const auto guess = state->guessing.find(source_key);
    if (guess != state->guessing.end() && now < guess->second.muted_until_ms) {
        ++state->muted;
        return PJ_TRUE;
    }
    if (!within_rate(source_key, now)) {
        ++state->over_rate;
        if (now - state->rate_noted_ms >= NOTE_RATE_MS) {
            state->rate_noted_ms = now;
            note("more than the allowed requests a second, from " + source_name);
        }
        const bool reply = state->answered.take(ANSWERED_OVER_RATE, now);
        guard.unlock();
        if (reply) answer(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, "Retry-After", 1);
        return PJ_TRUE;
    }
    if (in_dialog || method == PJSIP_CANCEL_METHOD) {  // of no call of ours: PJSIP would find its dialog by tags alone
        guard.unlock();
        if (is_repeated(rdata)) return PJ_FALSE;
        answer(rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST);
        return PJ_TRUE;
    }
    if (!peer->username.empty()) {
        const pj_str_t realm = pj_str(const_cast<char *>("trunkline"));
        const Shown what = shown(rdata, *peer, realm);
        if (what == Shown::wrong) {
            ++state->bad_digest;
            guessed_wrong(source_key, source_name, *peer, now);
            guard.unlock();
            answer(rdata, PJSIP_SC_FORBIDDEN);
            return PJ_TRUE;
        }
        if (what == Shown::other_uri) {
            ++state->bad_digest;
            guard.unlock();
            answer(rdata, PJSIP_SC_BAD_REQUEST);
            return PJ_TRUE;
        }
        if (what != Shown::right) {
            const Peer copy = *peer;
            guard.unlock();
            challenge(rdata, copy, realm, what == Shown::stale);
            return PJ_TRUE;
        }
        if (guess != state->guessing.end()) state->guessing.erase(guess);
    }
    if (method == PJSIP_OPTIONS_METHOD) return PJ_FALSE;  // PJSUA says 200
    if (method != PJSIP_INVITE_METHOD) {             // no registrar, no presence, no messages
        guard.unlock();
        answer(rdata, PJSIP_SC_METHOD_NOT_ALLOWED);
        return PJ_TRUE;
    }
    if (named || !is_usable(call_id)) {
        ++state->malformed;
        guard.unlock();
        answer(rdata, named ? PJSIP_SC_NOT_ACCEPTABLE_HERE : PJSIP_SC_BAD_REQUEST);
        return PJ_TRUE;
    }
    if (known != state->calls.end() && !known->second.over && known->second.trunk != peer->trunk) {
        guard.unlock();                              // that call stays its trunk's
        answer(rdata, PJSIP_SC_LOOP_DETECTED);
        return PJ_TRUE;
    }
    if (!state->accepting) {
        ++state->full;
        const unsigned retry_after_s = state->retry_after_s;
        guard.unlock();
        answer(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, "Retry-After", retry_after_s);
        return PJ_TRUE;
    }
    Traced &call = trace(call_id);
    call.trunk = peer->trunk;
    call.account = peer->account;
    call.invite_cseq = cseq;
    call.invite_source = source_key;
    add_addresses(call, msg);
    step(call, true, msg, rdata->msg_info.cseq, peer_of(rdata));
    return PJ_FALSE;
}

pjsip_tp_state_callback before_on_transport = nullptr;

pj_bool_t on_rx_response(pjsip_rx_data *rdata) {
    if (!rdata->msg_info.cid) return PJ_FALSE;
    names_host(rdata, true);
    std::lock_guard<std::mutex> guard(state->mutex);
    const auto known = state->calls.find(text(rdata->msg_info.cid->id));
    if (known != state->calls.end())
        step(known->second, true, rdata->msg_info.msg, rdata->msg_info.cseq, peer_of(rdata));
    return PJ_FALSE;
}

pj_status_t on_tx(pjsip_tx_data *tdata) {
    const pjsip_msg *msg = tdata->msg;
    const auto *cid = static_cast<const pjsip_cid_hdr *>(pjsip_msg_find_hdr(msg, PJSIP_H_CALL_ID, nullptr));
    const auto *cseq = static_cast<const pjsip_cseq_hdr *>(pjsip_msg_find_hdr(msg, PJSIP_H_CSEQ, nullptr));
    if (!cid || !cseq) return PJ_SUCCESS;
    std::string peer = tdata->tp_info.transport ? tdata->tp_info.transport->type_name : "";
    for (char &c : peer) c = char(tolower(c));
    peer += std::string(" ") + tdata->tp_info.dst_name + ":" + std::to_string(tdata->tp_info.dst_port);
    std::lock_guard<std::mutex> guard(state->mutex);
    const std::string call_id = text(cid->id);
    const bool ours = msg->type == PJSIP_REQUEST_MSG && msg->line.req.method.id == PJSIP_INVITE_METHOD;
    if (!ours && !state->calls.count(call_id)) return PJ_SUCCESS;
    Traced &call = trace(call_id);
    step(call, false, msg, cseq, peer);
    if (msg->type == PJSIP_REQUEST_MSG) add_address(call, Address::of(tdata->tp_info.dst_name));
    return PJ_SUCCESS;
}

// Connections that were made to us. A peer's must speak soon; of others only a few are kept.
void on_transport(pjsip_transport *transport, pjsip_transport_state what, const pjsip_transport_state_info *info) {
    if (before_on_transport) before_on_transport(transport, what, info);
    std::unique_lock<std::mutex> guard(state->mutex);
    if (what != PJSIP_TP_STATE_CONNECTED) {
        state->strange_connections.erase(transport);
        return;
    }
    if (transport->dir != PJSIP_TP_DIR_INCOMING) return;
    const bool peer = peer_for(Address::of(&transport->key.rem_addr)) != nullptr;
    if (!peer) {
        if (state->strange_connections.size() >= MAX_STRANGE_CONNECTIONS) {
            ++state->strangers;
            guard.unlock();
            pjsip_transport_shutdown2(transport, PJ_TRUE);
            return;
        }
        state->strange_connections.insert(transport);
    }
    guard.unlock();
    transport->initial_timeout = peer ? PEER_WORD_S : FIRST_WORD_S;
    pjsip_transport_add_ref(transport);
    pjsip_transport_dec_ref(transport);              // its timer begins
}

pjsip_module module = {
    nullptr,                                         // prev
    nullptr,                                         // next
    {const_cast<char *>("mod-trunkline-front"), 19},
    -1,
    PJSIP_MOD_PRIORITY_TRANSPORT_LAYER - 1,
    nullptr,                                         // load
    nullptr,                                         // start
    nullptr,                                         // stop
    nullptr,                                         // unload
    &on_rx_request,
    &on_rx_response,
    &on_tx,                                          // request
    &on_tx,                                          // response
    nullptr,                                         // transaction state
};

void on_account(const pjsip_rx_data *rdata, pjsua_acc_id *account) {
    std::lock_guard<std::mutex> guard(state->mutex);
    if (!rdata->msg_info.cid) return;
    const auto known = state->calls.find(text(rdata->msg_info.cid->id));
    if (known != state->calls.end() && known->second.account >= 0) {
        *account = known->second.account;
        return;
    }
    const Peer *peer = peer_for(Address::of(rdata->pkt_info.src_name));
    if (peer) *account = peer->account;
}

// PJLIB's log: bad datagrams are counted, the rest is kept for Python in bounds; nothing is printed.
void on_log(int level, const char *line, int length) {
    const std::string said(line, size_t(length));
    if (said.find("Error processing packet") != std::string::npos ||
        said.find("Dropping") != std::string::npos) {
        ++state->malformed;
        return;
    }
    const size_t end = said.find_first_of("\r\n");
    note("pjsip " + std::to_string(level) + ": " + clean(said.substr(0, end), MAX_NOTE));
}

}  // namespace

Front::Front() {
    state = new State();                             // for good, as PJSIP's threads may outlive us
    char random[33];
    pj_create_random_string(random, 32);
    state->secret.assign(random, 32);
    if (FILE *urandom = fopen("/dev/urandom", "rb")) {
        if (fread(random, 1, 32, urandom) == 32) state->secret.assign(random, 32);
        fclose(urandom);
    }
}

Front::~Front() = default;

void Front::quiet() { pj_log_set_level(0); }

int Front::start() {
    pj_log_set_log_func(&on_log);
    pjsua_get_var()->ua_cfg.cb.on_acc_find_for_incoming = &on_account;
    pjsip_tpmgr *transports = pjsip_endpt_get_tpmgr(pjsua_get_pjsip_endpt());
    before_on_transport = pjsip_tpmgr_get_state_cb(transports);
    pjsip_tpmgr_set_state_cb(transports, &on_transport);
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &module);
}

void Front::trunks(const std::string &table) {
    std::vector<Peer> peers;
    std::istringstream lines(table);
    for (std::string line; std::getline(lines, line);) {
        std::vector<std::string> fields(1);
        for (char c : line) {
            if (c == '\t') fields.emplace_back();
            else fields.back() += c;
        }
        if (fields.size() != 6) continue;
        std::vector<pjsip_auth_algorithm_type> algorithms;
        std::istringstream names(fields[5]);
        for (std::string name; std::getline(names, name, ',');)
            algorithms.push_back(name == "SHA-256" ? PJSIP_AUTH_ALGORITHM_SHA256 : PJSIP_AUTH_ALGORITHM_MD5);
        peers.push_back(
            {Network::parse(fields[0]), fields[1], fields[3], fields[4], atoi(fields[2].c_str()), algorithms});
    }
    std::lock_guard<std::mutex> guard(state->mutex);
    state->peers.swap(peers);
}

void Front::rates(unsigned per_s, unsigned per_source_per_s) {
    std::lock_guard<std::mutex> guard(state->mutex);
    state->per_s = state->all.tokens = per_s;
    state->per_source_per_s = per_source_per_s;
    state->all.at_ms = now_ms();
    state->sources.clear();
}

void Front::strangers(int status) {
    std::lock_guard<std::mutex> guard(state->mutex);
    state->stranger_status = status;
}

void Front::accept(bool calls, unsigned retry_after_s) {
    std::lock_guard<std::mutex> guard(state->mutex);
    state->accepting = calls;
    state->retry_after_s = retry_after_s;
}

void Front::dialled(const std::string &call_id, const std::string &trunk) {
    std::lock_guard<std::mutex> guard(state->mutex);
    trace(call_id).trunk = trunk;
}

std::string Front::trunk_of(const std::string &call_id) {
    std::lock_guard<std::mutex> guard(state->mutex);
    const auto known = state->calls.find(call_id);
    return known == state->calls.end() ? "" : known->second.trunk;
}

std::string Front::ladder(const std::string &call_id) {
    std::lock_guard<std::mutex> guard(state->mutex);
    const auto known = state->calls.find(call_id);
    if (known == state->calls.end()) return "";
    std::ostringstream out;
    for (const Step &one : known->second.steps)
        out << one.at_ms << '\t' << (one.inbound ? "in" : "out") << '\t' << one.what << '\t' << one.cseq << '\t'
            << one.peer << '\t' << one.repeated << '\n';
    (known->second.over ? state->done : state->ages).erase(known->second.age);
    state->calls.erase(known);
    return out.str();
}

std::string Front::counters() {
    char line[120];
    snprintf(line, sizeof(line), "%u %u %u %u %u %u", state->strangers.load(), state->over_rate.load(),
             state->bad_digest.load(), state->full.load(), state->malformed.load(), state->muted.load());
    return line;
}

std::string Front::notes() {
    std::lock_guard<std::mutex> guard(state->notes_mutex);
    std::string out;
    for (const std::string &one : state->notes) out += one + "\n";
    if (state->notes_dropped) out += std::to_string(state->notes_dropped) + " more\n";
    state->notes.clear();
    state->notes_dropped = 0;
    return out;
}

}  // namespace trunkline
