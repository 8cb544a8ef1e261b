#include "refers.hpp"

#include <pjlib.h>
#include <pjsip.h>
#include <pjsip_ua.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace trunkline {
namespace {

constexpr size_t MAX_OPEN = 64, MAX_OPEN_OF_CALL = 4, MAX_NEWS = 512, MAX_REFER_TO = 1100;
constexpr unsigned RETRY_AFTER_S = 60;
constexpr double TOLD_AT_ONCE = 16, TOLD_A_MINUTE = 12;  // of one call; Python's own rate is below that

struct Open {
    pjsip_transaction *tsx;                          // we hold a reference to its lock, so it stays
    pjsip_tx_data *response;
    pj_timer_entry *deadline;                        // of the transaction's pool
    int call;
    bool taken = false;
};

// What of one call's REFERs reaches Python.
struct Asking {
    const pjsip_dialog *dialog = nullptr;            // whose call this number is now
    double tokens = TOLD_AT_ONCE;
    int64_t at_ms = 0;
};

struct State {
    std::mutex mutex;
    std::unordered_map<unsigned, Open> open;
    std::unordered_map<int, Asking> asking;          // at most one a call
    std::deque<std::string> news;
    unsigned last_id = 0;
    unsigned wait_ms = 3'000;
    int event_fd = -1;
    bool stopped = true;
    std::atomic<unsigned> too_many{0}, late{0};
};
State *state = nullptr;

extern pjsip_module module;

const pj_str_t REFER = {const_cast<char *>("REFER"), 5}, NOTIFY = {const_cast<char *>("NOTIFY"), 6};

void tell(const std::string &line) {                 // with the mutex
    if (state->news.size() >= MAX_NEWS || state->event_fd < 0) return;
    state->news.push_back(line);
    const uint64_t one = 1;
    if (write(state->event_fd, &one, sizeof(one)) < 0) return;  // full: it is awake already
}

void add_header(pjsip_tx_data *tdata, const std::string &name, const std::string &value) {
    const pj_str_t name_text = {const_cast<char *>(name.data()), pj_ssize_t(name.size())};
    const pj_str_t value_text = {const_cast<char *>(value.data()), pj_ssize_t(value.size())};
    pjsip_generic_string_hdr *header = pjsip_generic_string_hdr_create(tdata->pool, &name_text, &value_text);
    pjsip_msg_add_hdr(tdata->msg, reinterpret_cast<pjsip_hdr *>(header));
}

// The values of a header that PJSIP has no type for.
std::vector<std::string> values(const pjsip_msg *msg, const char *name, const char *compact) {
    std::vector<std::string> found;
    for (const pjsip_hdr *header = msg->hdr.next; header != &msg->hdr; header = header->next) {
        if (pj_stricmp2(&header->name, name) && (!compact || pj_stricmp2(&header->name, compact))) continue;
        const pj_str_t &value = reinterpret_cast<const pjsip_generic_string_hdr *>(header)->hvalue;
        std::string text(value.ptr, size_t(std::min<pj_ssize_t>(value.slen, MAX_REFER_TO)));
        for (char &c : text)
            if (c < ' ' || c > '~') c = ' ';
        found.push_back(text);
    }
    return found;
}

void refuse(pjsip_rx_data *rdata, int status, bool retry) {
    pjsip_hdr headers;
    pj_list_init(&headers);
    if (retry)
        pj_list_push_back(&headers, pjsip_retry_after_hdr_create(rdata->tp_info.pool, int(RETRY_AFTER_S)));
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, status, nullptr, &headers, nullptr);
}

// RFC 3261 8.2.2.3: an extension that must be understood, and is not. Those that are change nothing for a REFER.
std::string not_understood(const pjsip_msg *msg) {
    std::string found;
    for (const pjsip_hdr *header = msg->hdr.next; header != &msg->hdr; header = header->next) {
        if (header->type != PJSIP_H_REQUIRE) continue;
        const auto *required = reinterpret_cast<const pjsip_require_hdr *>(header);
        for (unsigned i = 0; i < required->count; ++i) {
            const pj_str_t &tag = required->values[i];
            bool known = false;
            for (const char *name : {"norefersub", "replaces", "timer", "100rel"}) known |= !pj_stricmp2(&tag, name);
            if (!known) found += (found.empty() ? "" : ", ") + std::string(tag.ptr, size_t(tag.slen));
        }
    }
    return found;
}

void refuse_extension(pjsip_rx_data *rdata, const std::string &tags) {
    pjsip_hdr headers;
    pj_list_init(&headers);
    const pj_str_t name = pj_str(const_cast<char *>("Unsupported"));
    const pj_str_t value = {const_cast<char *>(tags.data()), pj_ssize_t(tags.size())};
    pj_list_push_back(&headers, pjsip_generic_string_hdr_create(rdata->tp_info.pool, &name, &value));
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, PJSIP_SC_BAD_EXTENSION, nullptr, &headers, nullptr);
}

void send(const Open &open, int status, const std::string &reason, const std::string &headers) {
    pjsip_tx_data *response = open.response;
    pjsip_msg *msg = response->msg;
    msg->line.status.code = status;
    if (reason.empty()) msg->line.status.reason = *pjsip_get_status_text(status);
    else pj_strdup2(response->pool, &msg->line.status.reason, reason.c_str());
    if (status / 100 != 2) {                         // there Contact would mean something else
        void *contact = pjsip_msg_find_hdr(msg, PJSIP_H_CONTACT, nullptr);
        if (contact) pj_list_erase(contact);
    }
    std::istringstream lines(headers);
    for (std::string line; std::getline(lines, line);) {
        const size_t colon = line.find(": ");
        if (colon != std::string::npos) add_header(response, line.substr(0, colon), line.substr(colon + 2));
    }
    pjsip_tx_data_invalidate_msg(response);
    pjsip_endpt_cancel_timer(pjsua_get_pjsip_endpt(), open.deadline);
    if (pjsip_tsx_send_msg(open.tsx, response) != PJ_SUCCESS) {
        pjsip_tx_data_dec_ref(response);
        pjsip_tsx_terminate(open.tsx, PJSIP_SC_INTERNAL_SERVER_ERROR);
    }
    pj_grp_lock_dec_ref(open.tsx->grp_lock);
}

bool claim(unsigned id) {
    std::lock_guard<std::mutex> guard(state->mutex);
    const auto found = state->open.find(id);
    if (found == state->open.end() || found->second.taken) return false;
    found->second.taken = true;
    return true;
}

void answer_claimed(unsigned id, int status, const std::string &reason, const std::string &headers) {
    std::unique_lock<std::mutex> guard(state->mutex);
    const auto found = state->open.find(id);
    if (found == state->open.end() || !found->second.taken) return;
    const Open open = found->second;
    state->open.erase(found);
    guard.unlock();
    send(open, status, reason, headers);
}

void on_deadline(pj_timer_heap_t *, pj_timer_entry *entry) {
    const unsigned id = unsigned(reinterpret_cast<uintptr_t>(entry->user_data));
    if (!claim(id)) return;
    ++state->late;
    answer_claimed(id, PJSIP_SC_INTERNAL_SERVER_ERROR, "", "");
}

bool is_crowded(int call) {                          // with the mutex
    const auto same = std::count_if(state->open.begin(), state->open.end(),
                                    [call](const auto &one) { return one.second.call == call; });
    return state->open.size() >= MAX_OPEN || size_t(same) >= MAX_OPEN_OF_CALL;
}

bool is_over_rate(int call, const pjsip_dialog *dialog) {  // with the mutex
    pj_time_val now;
    pj_gettickcount(&now);
    const int64_t now_ms = int64_t(now.sec) * 1000 + now.msec;
    Asking &asking = state->asking[call];
    if (asking.dialog != dialog) asking = Asking{dialog, TOLD_AT_ONCE, now_ms};
    asking.tokens = std::min(TOLD_AT_ONCE, asking.tokens + double(now_ms - asking.at_ms) * TOLD_A_MINUTE / 60'000);
    asking.at_ms = now_ms;
    if (asking.tokens < 1) return true;
    asking.tokens -= 1;
    return false;
}

// A transaction of ours; its REFER is told.
void open_refer(pjsip_rx_data *rdata, const pjsip_dialog *dialog, int call) {
    pjsip_endpoint *endpoint = pjsua_get_pjsip_endpt();
    pjsip_transaction *tsx = nullptr;
    pjsip_tx_data *response = nullptr;
    if (pjsip_tsx_create_uas2(&module, rdata, nullptr, &tsx) != PJ_SUCCESS) {
        refuse(rdata, PJSIP_SC_INTERNAL_SERVER_ERROR, false);
        return;
    }
    pjsip_tsx_recv_msg(tsx, rdata);
    if (pjsip_endpt_create_response(endpoint, rdata, PJSIP_SC_DECLINE, nullptr, &response) != PJ_SUCCESS) {
        pjsip_tsx_terminate(tsx, PJSIP_SC_INTERNAL_SERVER_ERROR);
        return;
    }
    if (dialog->local.contact)
        pjsip_msg_add_hdr(response->msg,
                          static_cast<pjsip_hdr *>(pjsip_hdr_clone(response->pool, dialog->local.contact)));
    pj_grp_lock_add_ref(tsx->grp_lock);
    const pjsip_msg *msg = rdata->msg_info.msg;
    const std::vector<std::string> refer_to = values(msg, "Refer-To", "r"), sub = values(msg, "Refer-Sub", nullptr);
    const bool silent = !sub.empty() && !strncasecmp(sub[0].c_str(), "false", 5);
    unsigned id;
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        id = ++state->last_id;
    }
    pj_timer_entry *deadline = PJ_POOL_ZALLOC_T(tsx->pool, pj_timer_entry);
    pj_timer_entry_init(deadline, 0, reinterpret_cast<void *>(uintptr_t(id)), &on_deadline);
    const pj_time_val delay = {long(state->wait_ms / 1000), long(state->wait_ms % 1000)};
    pjsip_endpt_schedule_timer_w_grp_lock(endpoint, deadline, &delay, 1, tsx->grp_lock);
    std::ostringstream line;
    line << "asked\t" << id << '\t' << call << '\t' << uint32_t(rdata->msg_info.cseq->cseq) << '\t' << silent << '\t'
         << (refer_to.size() == 1 ? refer_to[0] : "");
    std::lock_guard<std::mutex> guard(state->mutex);
    state->open[id] = Open{tsx, response, deadline, call};
    tell(line.str());
}

pj_bool_t on_rx_request(pjsip_rx_data *rdata) {
    const pjsip_msg *msg = rdata->msg_info.msg;
    if (pj_strcmp(&msg->line.req.method.name, &REFER)) return PJ_FALSE;
    if (!rdata->msg_info.cid || !rdata->msg_info.cseq || !rdata->msg_info.to || !rdata->msg_info.to->tag.slen ||
        !rdata->msg_info.from)
        return PJ_FALSE;
    pjsip_dialog *dialog = pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag,
                                                &rdata->msg_info.from->tag, PJ_TRUE);
    if (!dialog) return PJ_FALSE;                    // PJSIP says 481
    const auto *call = static_cast<const pjsua_call *>(dialog->mod_data[pjsua_get_var()->mod.id]);
    const pjsip_inv_session *session = pjsip_dlg_get_inv_session(dialog);
    const bool talks = call && session && (session->state == PJSIP_INV_STATE_CONFIRMED ||
                                           session->state == PJSIP_INV_STATE_CONNECTING);
    // As the dialog would (RFC 3261 12.2.2): what is refused counts as well, lest its copy be followed later
    const bool stale = rdata->msg_info.cseq->cseq <= dialog->remote.cseq;
    if (!stale) dialog->remote.cseq = rdata->msg_info.cseq->cseq;
    bool crowded, stopped;
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        stopped = state->stopped;
        crowded = talks && !stale && (is_crowded(call->index) || is_over_rate(call->index, dialog));
    }
    const std::string unknown = not_understood(msg);
    if (stale) refuse(rdata, PJSIP_SC_INTERNAL_SERVER_ERROR, false);
    else if (!talks) refuse(rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST, false);
    else if (!unknown.empty()) refuse_extension(rdata, unknown);
    else if (stopped) refuse(rdata, PJSIP_SC_DECLINE, false);
    else if (crowded) {
        ++state->too_many;
        refuse(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, true);
    } else open_refer(rdata, dialog, call->index);
    pjsip_dlg_dec_lock(dialog);
    return PJ_TRUE;
}

void on_notified(void *token, pjsip_event *event);

// A NOTIFY that is challenged is sent again with the trunk's credentials, if it had none. False: it is not.
bool notify_again(void *token, const pjsip_transaction *tsx, pjsip_rx_data *rdata) {
    pjsip_dialog *dialog = pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.from->tag,
                                                &rdata->msg_info.to->tag, PJ_TRUE);
    if (!dialog) return false;
    pjsip_tx_data *again = nullptr;
    pj_status_t status = pjsip_auth_clt_reinit_req(&dialog->auth_sess, rdata, tsx->last_tx, &again);
    if (status == PJ_SUCCESS) {
        PJSIP_MSG_CSEQ_HDR(again->msg)->cseq = dialog->local.cseq++;
        pjsip_tx_data_invalidate_msg(again);
        status = pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), again, -1, token, &on_notified);
    }
    pjsip_dlg_dec_lock(dialog);
    return status == PJ_SUCCESS;
}

void on_notified(void *token, pjsip_event *event) {
    const unsigned id = unsigned(reinterpret_cast<uintptr_t>(token));
    const pjsip_transaction *tsx = event->type == PJSIP_EVENT_TSX_STATE ? event->body.tsx_state.tsx : nullptr;
    const bool challenged = tsx && event->body.tsx_state.type == PJSIP_EVENT_RX_MSG &&
                            (tsx->status_code == PJSIP_SC_UNAUTHORIZED ||
                             tsx->status_code == PJSIP_SC_PROXY_AUTHENTICATION_REQUIRED);
    if (challenged && notify_again(token, tsx, event->body.tsx_state.src.rdata)) return;
    std::lock_guard<std::mutex> guard(state->mutex);
    tell("told\t" + std::to_string(id) + "\t" + std::to_string(tsx ? tsx->status_code : 0));
}

pjsip_module module = {
    nullptr,                                         // prev
    nullptr,                                         // next
    {const_cast<char *>("mod-trunkline-refers"), 20},
    -1,
    PJSIP_MOD_PRIORITY_TSX_LAYER + 4,                // retransmissions end before, dialogs begin behind
    nullptr,                                         // load
    nullptr,                                         // start
    nullptr,                                         // stop
    nullptr,                                         // unload
    &on_rx_request,
    nullptr,                                         // response
    nullptr,                                         // tx request
    nullptr,                                         // tx response
    nullptr,                                         // transaction state
};

}  // namespace

Refers::Refers() { state = new State(); }            // for good, as PJSIP's threads may outlive us

Refers::~Refers() = default;

int Refers::start(int event_fd, unsigned wait_ms) {
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        state->event_fd = event_fd;
        state->wait_ms = wait_ms;
        state->stopped = false;
    }
    return pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &module);
}

void Refers::stop() {
    std::vector<unsigned> left;
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        state->stopped = true;
        state->event_fd = -1;
        for (const auto &one : state->open) left.push_back(one.first);
    }
    for (unsigned id : left) {
        claim(id);
        answer_claimed(id, PJSIP_SC_DECLINE, "", "");
    }
}

std::string Refers::news() {
    std::lock_guard<std::mutex> guard(state->mutex);
    std::string out;
    for (const std::string &line : state->news) out += line + "\n";
    state->news.clear();
    return out;
}

bool Refers::take(unsigned id) { return claim(id); }

void Refers::answer(unsigned id, int status, const std::string &reason, const std::string &headers) {
    answer_claimed(id, status, reason, headers);
}

int Refers::notify(unsigned id, int call, unsigned cseq, bool named, const std::string &state_text,
                   const std::string &line) {
    pjsua_call *found = nullptr;
    pjsip_dialog *dialog = nullptr;
    pj_status_t status = acquire_call("Refers::notify", call, &found, &dialog);
    if (status != PJ_SUCCESS) return status;
    pjsip_method method;
    pj_str_t name = NOTIFY;
    pjsip_method_init_np(&method, &name);
    pjsip_tx_data *request = nullptr;
    status = pjsip_dlg_create_request(dialog, &method, -1, &request);
    if (status == PJ_SUCCESS) {
        ++dialog->local.cseq;
        pjsip_tx_data_set_transport(request, &dialog->tp_sel);
        if (dialog->via_addr.host.slen > 0) {
            request->via_addr = dialog->via_addr;
            request->via_tp = dialog->via_tp;
        }
        add_header(request, "Event", named ? "refer;id=" + std::to_string(cseq) : "refer");
        add_header(request, "Subscription-State", state_text);
        pj_str_t type = pj_str(const_cast<char *>("message")), subtype = pj_str(const_cast<char *>("sipfrag"));
        const std::string fragment = line + "\r\n";
        const pj_str_t content = {const_cast<char *>(fragment.data()), pj_ssize_t(fragment.size())};
        pjsip_msg_body *body = pjsip_msg_body_create(request->pool, &type, &subtype, &content);
        pjsip_param *version = PJ_POOL_ZALLOC_T(request->pool, pjsip_param);
        version->name = pj_str(const_cast<char *>("version"));
        version->value = pj_str(const_cast<char *>("2.0"));
        pj_list_push_back(&body->content_type.param, version);
        request->msg->body = body;
        status = pjsip_endpt_send_request(pjsua_get_pjsip_endpt(), request, -1,
                                          reinterpret_cast<void *>(uintptr_t(id)), &on_notified);
    }
    pjsip_dlg_dec_lock(dialog);
    return status;
}

int Refers::call_of(const std::string &call_id, const std::string &one_tag, const std::string &other_tag) {
    const auto text = [](const std::string &from) {
        return pj_str_t{const_cast<char *>(from.data()), pj_ssize_t(from.size())};
    };
    const pj_str_t id = text(call_id), one = text(one_tag), other = text(other_tag);
    pjsip_dialog *dialog = pjsip_ua_find_dialog(&id, &one, &other, PJ_TRUE);
    if (!dialog) dialog = pjsip_ua_find_dialog(&id, &other, &one, PJ_TRUE);
    if (!dialog) return -1;
    const auto *call = static_cast<const pjsua_call *>(dialog->mod_data[pjsua_get_var()->mod.id]);
    const int index = call ? call->index : -1;
    pjsip_dlg_dec_lock(dialog);
    return index;
}

std::string Refers::counters() {
    return std::to_string(state->too_many.load()) + " " + std::to_string(state->late.load());
}

}  // namespace trunkline
