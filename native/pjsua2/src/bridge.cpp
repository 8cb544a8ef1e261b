#include "bridge.hpp"

#include <pjlib.h>
#include <pjmedia.h>
#include <pjsip_simple.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

#include <errno.h>
#include <pthread.h>
#include <strings.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <iterator>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "network.hpp"

namespace trunkline {
namespace {

constexpr unsigned FRAME_SAMPLES = 160, FRAME_MS = 20, RATE_HZ = 8000;
constexpr unsigned FRAME_BYTES = FRAME_SAMPLES;      // mu-law
constexpr unsigned HEARD_FRAMES = 64;                // 1.28 s: as long as the loop may be away without loss
constexpr unsigned SAID_FRAMES = 64;
constexpr unsigned RECORD_BYTES = 16 + FRAME_BYTES;
constexpr int64_t TICK_NS = 20'000'000, RESYNC_NS = 200'000'000;
// Without RTP for so long, what comes is the decoder's invention: it is lost, not silence. Beyond the second figure the
// far end has stopped sending on purpose (DTX without comfort noise), and its silence counts.
constexpr int64_t LOST_FROM_MS = 100, LOST_UNTIL_MS = 600;
constexpr int64_t RELATCH_MS = 2000;                 // the far end has moved: its old address is silent for so long
constexpr unsigned COMFORT_NOISE = 13;               // RTP payload type, RFC 3389
constexpr int CLOCK_NICE = -10;
constexpr int BYE_TRIES = 100;                       // of 20 ms, for the dialog's lock
// Of what a far end may send as often as it likes, so much is told to Python: REFERs a call, NOTIFYs for a REFER of ours.
constexpr int REFERS_TOLD = 16, NOTIFIES_TOLD = 64;

int64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}
int64_t now_ms() { return now_ns() / 1'000'000; }

// --- G.711 mu-law (ITU-T G.711) by table

struct MuLaw {
    uint8_t encode[1 << 14];                         // by the upper 14 bits: mu-law is a 14-bit code
    int16_t decode[256];
    MuLaw() {
        for (int code = 0; code < 256; ++code) {
            int value = ~code & 0xff, exponent = (value >> 4) & 7;
            int magnitude = ((((value & 15) << 3) + 0x84) << exponent) - 0x84;
            decode[code] = int16_t(value & 0x80 ? -magnitude : magnitude);
        }
        for (int i = 0; i < 1 << 14; ++i) encode[i] = encode_one(int16_t(i << 2));
    }
    static uint8_t encode_one(int sample) {
        int sign = sample < 0 ? 0x80 : 0;
        int magnitude = std::min(sign ? -sample : sample, 32635) + 0x84;
        int exponent = 7;
        for (int mask = 0x4000; exponent > 0 && !(magnitude & mask); mask >>= 1) --exponent;
        return uint8_t(~(sign | (exponent << 4) | ((magnitude >> (exponent + 3)) & 15)));
    }
};
const MuLaw mulaw;
const uint8_t SILENCE = 0xff;

// --- a line

struct Line {
    // Of whoever still uses it: the call, its transport adapters, its port in the conference, Python.
    std::atomic<int> users{0};
    std::atomic<int> adapters{0};
    std::atomic<bool> claimed{false}, limit_hit{false}, latched{false}, comfort_noise{false};
    std::atomic<int64_t> rtp_at{0}, heard_at{0};     // ms
    std::atomic<uint32_t> limit_frames{0}, frames{0};
    std::atomic<uint32_t> taken{0}, replaced{0}, cleared{0}, overrun{0}, missing{0}, strange{0};
    int call_id = -1, account = -1;
    pjsip_inv_session *inv = nullptr;
    pjsua_conf_port_id slot = PJSUA_INVALID_ID;
    uint64_t first_tick = 0;

    // Heard: the clock writes at the head, Python reads at the tail.
    std::vector<uint8_t> heard = std::vector<uint8_t>(HEARD_FRAMES * FRAME_BYTES);
    uint32_t heard_position[HEARD_FRAMES];
    std::atomic<uint32_t> heard_head{0}, heard_tail{0};
    // Said: Python writes at the head and may clear, which moves the tail; the clock takes at the tail, by compare and
    // swap, so that a frame is either taken or cleared.
    std::vector<uint8_t> said = std::vector<uint8_t>(SAID_FRAMES * FRAME_BYTES);
    std::atomic<uint32_t> said_head{0}, said_tail{0};
    std::atomic<uint32_t> starved{0};                // silent ticks since the ring ran dry
    uint32_t reported_taken = 0;                     // Python's
    uint16_t reported_flags = 0;

    void reset(int call, int acc) {
        claimed = limit_hit = latched = comfort_noise = false;
        rtp_at = 0;
        heard_at = now_ms();
        limit_frames = frames = taken = replaced = cleared = overrun = missing = strange = starved = 0;
        heard_head = heard_tail = said_head = said_tail = 0;
        call_id = call, account = acc;
        slot = PJSUA_INVALID_ID;
        first_tick = 0;
        reported_taken = reported_flags = 0;
    }
};

struct Adapter;

struct State {
    std::mutex mutex;                                // of everything but the rings
    std::vector<Line> lines;
    std::vector<int> free;
    std::vector<int> by_call = std::vector<int>(PJSUA_MAX_CALLS, -1);
    struct Told {
        int refers = 0, notifies = 0;
    };
    std::vector<Told> told = std::vector<Told>(PJSUA_MAX_CALLS);  // by call; with its dialog's lock
    std::vector<std::vector<Network>> networks = std::vector<std::vector<Network>>(PJSUA_MAX_ACC);
    std::vector<std::vector<std::string>> codecs = std::vector<std::vector<std::string>>(PJSUA_MAX_ACC);  // by account
    pj_pool_t *pool = nullptr;

    std::thread clock, reaper;
    std::atomic<bool> quit{false};
    std::atomic<uint64_t> tick{0};
    int event_fd = -1;

    std::deque<int> ending;                          // lines whose limit was reached
    std::condition_variable ending_change;

    std::mutex timing_mutex;
    std::vector<uint32_t> late_us;
    uint64_t busy_us = 0;
    uint32_t resyncs = 0;

    pjsua_callback before;                           // pjsua2's own

    explicit State(unsigned count) : lines(count) {
        for (unsigned i = 0; i < count; ++i) free.push_back(int(count - 1 - i));
    }
};
State *state = nullptr;

void use(int index) { state->lines[index].users.fetch_add(1); }

void leave(int index) {
    if (state->lines[index].users.fetch_sub(1) == 1) {
        std::lock_guard<std::mutex> guard(state->mutex);
        state->free.push_back(index);
    }
}

// --- the line's port in the conference

struct Port {
    pjmedia_port base;
    pj_pool_t *pool;
    int line;
};

pj_status_t port_put_frame(pjmedia_port *base, pjmedia_frame *frame) {
    Line &line = state->lines[reinterpret_cast<Port *>(base)->line];
    const uint32_t limit = line.limit_frames.load(std::memory_order_relaxed);
    const uint32_t count = line.frames.load(std::memory_order_relaxed) + 1;
    line.frames.store(count, std::memory_order_relaxed);
    if (limit && count >= limit) {
        if (!line.limit_hit.exchange(true)) {
            std::lock_guard<std::mutex> guard(state->mutex);
            state->ending.push_back(reinterpret_cast<Port *>(base)->line);
            state->ending_change.notify_one();
        }
        return PJ_SUCCESS;
    }
    const int64_t rtp_at = line.rtp_at.load(std::memory_order_relaxed);
    if (rtp_at == 0 || !line.claimed.load(std::memory_order_acquire)) return PJ_SUCCESS;
    const int64_t age = now_ms() - rtp_at;
    if (age > LOST_FROM_MS && age < LOST_UNTIL_MS && !line.comfort_noise.load(std::memory_order_relaxed)) {
        line.missing.fetch_add(1, std::memory_order_relaxed);
        return PJ_SUCCESS;
    }
    const uint32_t head = line.heard_head.load(std::memory_order_relaxed);
    if (head - line.heard_tail.load(std::memory_order_acquire) == HEARD_FRAMES) {
        line.overrun.fetch_add(1, std::memory_order_relaxed);
        return PJ_SUCCESS;
    }
    uint8_t *out = &line.heard[(head % HEARD_FRAMES) * FRAME_BYTES];
    if (frame->type == PJMEDIA_FRAME_TYPE_AUDIO && frame->size == FRAME_SAMPLES * 2) {
        const int16_t *in = static_cast<const int16_t *>(frame->buf);
        for (unsigned i = 0; i < FRAME_SAMPLES; ++i) out[i] = mulaw.encode[uint16_t(in[i]) >> 2];
    } else {
        memset(out, SILENCE, FRAME_BYTES);
    }
    line.heard_position[head % HEARD_FRAMES] =
        uint32_t((state->tick.load(std::memory_order_relaxed) - line.first_tick) * FRAME_MS);
    line.heard_head.store(head + 1, std::memory_order_release);
    return PJ_SUCCESS;
}

pj_status_t port_get_frame(pjmedia_port *base, pjmedia_frame *frame) {
    Line &line = state->lines[reinterpret_cast<Port *>(base)->line];
    frame->type = PJMEDIA_FRAME_TYPE_NONE;
    if (line.limit_hit.load(std::memory_order_relaxed)) return PJ_SUCCESS;
    uint32_t tail = line.said_tail.load(std::memory_order_relaxed);
    if (tail == line.said_head.load(std::memory_order_acquire)) {
        line.starved.fetch_add(1, std::memory_order_relaxed);
        return PJ_SUCCESS;
    }
    const uint8_t *in = &line.said[(tail % SAID_FRAMES) * FRAME_BYTES];
    int16_t *out = static_cast<int16_t *>(frame->buf);
    for (unsigned i = 0; i < FRAME_SAMPLES; ++i) out[i] = mulaw.decode[in[i]];
    if (!line.said_tail.compare_exchange_strong(tail, tail + 1, std::memory_order_acq_rel)) {
        return PJ_SUCCESS;                           // cleared while we read it
    }
    line.starved.store(0, std::memory_order_relaxed);
    line.taken.fetch_add(1, std::memory_order_release);
    frame->size = FRAME_SAMPLES * 2;
    frame->type = PJMEDIA_FRAME_TYPE_AUDIO;
    return PJ_SUCCESS;
}

void port_gone(void *argument) {
    Port *port = static_cast<Port *>(argument);
    const int line = port->line;
    pj_pool_release(port->pool);
    leave(line);
}

pj_status_t port_on_destroy(pjmedia_port *) { return PJ_SUCCESS; }

// A port for the line, in the conference. With PJSUA's lock or the dialog's held, as callbacks are.
void open_port(int index) {
    Line &line = state->lines[index];
    pj_pool_t *pool = pjsua_pool_create("line%p", 1024, 1024);
    Port *port = PJ_POOL_ZALLOC_T(pool, Port);
    port->pool = pool;
    port->line = index;
    pj_str_t name = pj_str(const_cast<char *>("line"));
    pjmedia_port_info_init(&port->base.info, &name, PJMEDIA_SIG_CLASS_APP('T', 'L', 'N'), RATE_HZ, 1, 16, FRAME_SAMPLES);
    port->base.put_frame = &port_put_frame;
    port->base.get_frame = &port_get_frame;
    port->base.on_destroy = &port_on_destroy;
    pj_status_t status = pjmedia_port_init_grp_lock(&port->base, pool, nullptr);
    if (status != PJ_SUCCESS) {
        pj_pool_release(pool);
        return;
    }
    use(index);
    pj_grp_lock_add_handler(port->base.grp_lock, nullptr, port, &port_gone);
    line.first_tick = state->tick.load();
    pjsua_conf_port_id slot;
    if (pjsua_conf_add_port(pool, &port->base, &slot) == PJ_SUCCESS) line.slot = slot;
    pjmedia_port_destroy(&port->base);               // ours; the conference has its own
}

// --- the latch: whose RTP is heard

struct Adapter {
    pjmedia_transport base;
    pj_pool_t *pool;
    pjmedia_transport *below;
    bool close_below;
    int line;
    void *user_data;
    void (*rtp_cb)(void *, void *, pj_ssize_t);
    void (*rtp_cb2)(pjmedia_tp_cb_param *);
    void (*rtcp_cb)(void *, void *, pj_ssize_t);
    Address signalled;                               // of the SDP
    pj_uint16_t signalled_port;
    Address source;                                  // learnt
    pj_uint16_t source_port;
    bool learnt;
    Address left;                                    // learnt, until the SDP named another: it still sends for a while
    pj_uint16_t left_port;
    int64_t left_until;                              // ms
};

Adapter *adapter_of(pjmedia_transport *tp) { return reinterpret_cast<Adapter *>(tp); }

bool may_send(const Adapter *adapter, const Address &address) {
    if (adapter->signalled.known && address == adapter->signalled) return true;
    std::lock_guard<std::mutex> guard(state->mutex);
    const int account = state->lines[adapter->line].account;
    if (account < 0) return false;
    for (const Network &network : state->networks[account])
        if (network.has(address)) return true;
    return false;
}

void on_rtp(pjmedia_tp_cb_param *param) {
    Adapter *adapter = static_cast<Adapter *>(param->user_data);
    Line &line = state->lines[adapter->line];
    const int64_t now = now_ms();
    bool moved = false;
    if (param->src_addr && pj_sockaddr_has_addr(param->src_addr)) {
        const Address address = Address::of(param->src_addr);
        const pj_uint16_t port = pj_sockaddr_get_port(param->src_addr);
        if (!adapter->learnt || port != adapter->source_port || !(address == adapter->source)) {
            const bool silent = now - line.rtp_at.load(std::memory_order_relaxed) > RELATCH_MS;
            // What the SDP named comes before what was learnt: an ended call's far end may still send to this port.
            const bool named = port == adapter->signalled_port && address == adapter->signalled;
            if (!named && !adapter->learnt && now < adapter->left_until && port == adapter->left_port &&
                address == adapter->left)
                return;
            if ((adapter->learnt && !silent && !named) || !may_send(adapter, address)) {
                line.strange.fetch_add(1, std::memory_order_relaxed);
                return;
            }
            adapter->source = address;
            adapter->source_port = port;
            adapter->learnt = moved = true;
        }
    }
    if (param->size >= 12) {
        const unsigned type = static_cast<const uint8_t *>(param->pkt)[1] & 0x7f;
        line.comfort_noise.store(type == COMFORT_NOISE, std::memory_order_relaxed);
        line.rtp_at.store(now, std::memory_order_relaxed);
        line.heard_at.store(now, std::memory_order_relaxed);
    }
    if (adapter->rtp_cb2) {
        pjmedia_tp_cb_param above = *param;
        above.user_data = adapter->user_data;
        adapter->rtp_cb2(&above);
        param->rem_switch = above.rem_switch || moved;  // answer to where it speaks from, at once
    } else if (adapter->rtp_cb) {
        adapter->rtp_cb(adapter->user_data, param->pkt, param->size);
    }
}

void on_rtcp(void *user_data, void *packet, pj_ssize_t size) {
    Adapter *adapter = static_cast<Adapter *>(user_data);
    Line &line = state->lines[adapter->line];
    pjmedia_transport_info info;                     // the callback does not say who sent it, the transport knows
    pjmedia_transport_info_init(&info);
    if (pjmedia_transport_get_info(adapter->below, &info) == PJ_SUCCESS && pj_sockaddr_has_addr(&info.src_rtcp_name)) {
        const Address source = Address::of(&info.src_rtcp_name);
        if (!(source == adapter->source) && !may_send(adapter, source)) {
            line.strange.fetch_add(1, std::memory_order_relaxed);
            return;
        }
    }
    if (size > 0) line.heard_at.store(now_ms(), std::memory_order_relaxed);
    if (adapter->rtcp_cb) adapter->rtcp_cb(adapter->user_data, packet, size);
}

pj_status_t tp_get_info(pjmedia_transport *tp, pjmedia_transport_info *info) {
    return pjmedia_transport_get_info(adapter_of(tp)->below, info);
}
pj_status_t tp_attach2(pjmedia_transport *tp, pjmedia_transport_attach_param *attach) {
    Adapter *adapter = adapter_of(tp);
    adapter->user_data = attach->user_data;
    adapter->rtp_cb = attach->rtp_cb;
    adapter->rtp_cb2 = attach->rtp_cb2;
    adapter->rtcp_cb = attach->rtcp_cb;
    attach->rtp_cb = nullptr;
    attach->rtp_cb2 = &on_rtp;
    attach->rtcp_cb = &on_rtcp;
    attach->user_data = adapter;
    pj_status_t status = pjmedia_transport_attach2(adapter->below, attach);
    if (status != PJ_SUCCESS) adapter->user_data = nullptr;
    return status;
}
void tp_detach(pjmedia_transport *tp, void *) {
    Adapter *adapter = adapter_of(tp);
    if (adapter->user_data) {
        pjmedia_transport_detach(adapter->below, adapter);
        adapter->user_data = nullptr;
        adapter->rtp_cb = nullptr;
        adapter->rtp_cb2 = nullptr;
        adapter->rtcp_cb = nullptr;
    }
}
pj_status_t tp_send_rtp(pjmedia_transport *tp, const void *packet, pj_size_t size) {
    return pjmedia_transport_send_rtp(adapter_of(tp)->below, packet, size);
}
pj_status_t tp_send_rtcp(pjmedia_transport *tp, const void *packet, pj_size_t size) {
    return pjmedia_transport_send_rtcp(adapter_of(tp)->below, packet, size);
}
pj_status_t tp_send_rtcp2(pjmedia_transport *tp, const pj_sockaddr_t *to, unsigned to_length, const void *packet,
                          pj_size_t size) {
    return pjmedia_transport_send_rtcp2(adapter_of(tp)->below, to, to_length, packet, size);
}
pj_status_t tp_media_create(pjmedia_transport *tp, pj_pool_t *pool, unsigned options,
                            const pjmedia_sdp_session *remote, unsigned index) {
    return pjmedia_transport_media_create(adapter_of(tp)->below, pool, options, remote, index);
}
pj_status_t tp_encode_sdp(pjmedia_transport *tp, pj_pool_t *pool, pjmedia_sdp_session *local,
                          const pjmedia_sdp_session *remote, unsigned index) {
    return pjmedia_transport_encode_sdp(adapter_of(tp)->below, pool, local, remote, index);
}
pj_status_t tp_media_start(pjmedia_transport *tp, pj_pool_t *pool, const pjmedia_sdp_session *local,
                           const pjmedia_sdp_session *remote, unsigned index) {
    Adapter *adapter = adapter_of(tp);
    const pjmedia_sdp_conn *connection = nullptr;
    if (remote && index < remote->media_count)
        connection = remote->media[index]->conn ? remote->media[index]->conn : remote->conn;
    const Address signalled = connection ? Address::of(&connection->addr) : Address();
    const pj_uint16_t port = connection ? remote->media[index]->desc.port : 0;
    if (adapter->learnt && (port != adapter->signalled_port || !(signalled == adapter->signalled))) {
        adapter->left = adapter->source;
        adapter->left_port = adapter->source_port;
        adapter->left_until = now_ms() + RELATCH_MS;
    }
    adapter->signalled = signalled;
    adapter->signalled_port = port;
    adapter->learnt = false;                         // whoever negotiates may move
    return pjmedia_transport_media_start(adapter->below, pool, local, remote, index);
}
pj_status_t tp_media_stop(pjmedia_transport *tp) { return pjmedia_transport_media_stop(adapter_of(tp)->below); }
pj_status_t tp_simulate_lost(pjmedia_transport *tp, pjmedia_dir direction, unsigned percent) {
    return pjmedia_transport_simulate_lost(adapter_of(tp)->below, direction, percent);
}
void adapter_gone(void *argument) {
    Adapter *adapter = static_cast<Adapter *>(argument);
    const int line = adapter->line;
    pj_pool_release(adapter->pool);
    leave(line);
}
// A call that PJSUA refuses by itself ends without a callback, but not without its transports.
void close_unclaimed(int index) {
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        Line &line = state->lines[index];
        if (line.claimed || line.inv || state->by_call[line.call_id] != index) return;
        state->by_call[line.call_id] = -1;
    }
    leave(index);
}

pj_status_t tp_destroy(pjmedia_transport *tp) {
    Adapter *adapter = adapter_of(tp);
    if (state->lines[adapter->line].adapters.fetch_sub(1) == 1) close_unclaimed(adapter->line);
    if (adapter->close_below) pjmedia_transport_close(adapter->below);
    if (adapter->base.grp_lock)
        pj_grp_lock_dec_ref(adapter->base.grp_lock);
    else
        adapter_gone(adapter);
    return PJ_SUCCESS;
}
pjmedia_transport_op adapter_operations = {
    &tp_get_info,    nullptr,        &tp_detach,     &tp_send_rtp,   &tp_send_rtcp,     &tp_send_rtcp2, &tp_media_create,
    &tp_encode_sdp,  &tp_media_start, &tp_media_stop, &tp_simulate_lost, &tp_destroy,    &tp_attach2,
};

int line_of_call(int call_id) {
    std::lock_guard<std::mutex> guard(state->mutex);
    return call_id < 0 || call_id >= int(state->by_call.size()) ? -1 : state->by_call[call_id];
}

int open_line(int call_id) {
    std::lock_guard<std::mutex> guard(state->mutex);
    int &index = state->by_call[call_id];
    if (index < 0) {
        if (state->free.empty()) return -1;
        index = state->free.back();
        state->free.pop_back();
        state->lines[index].reset(call_id, pjsua_get_var()->calls[call_id].acc_id);
        use(index);                                  // the call's
    }
    return index;
}

// --- PJSUA's callbacks, before pjsua2 hears of them

pjmedia_transport *on_create_media_transport(pjsua_call_id call_id, unsigned media, pjmedia_transport *below,
                                             unsigned flags) {
    if (pjsua_get_var()->calls[call_id].media_prov[media].type != PJMEDIA_TYPE_AUDIO) return below;
    const int index = open_line(call_id);
    if (index < 0 || !below->grp_lock) return below;
    pj_pool_t *pool = pjsua_pool_create("latch%p", 512, 512);
    Adapter *adapter = new (pj_pool_zalloc(pool, sizeof(Adapter))) Adapter();
    adapter->pool = pool;
    pj_ansi_strxcpy(adapter->base.name, pool->obj_name, sizeof(adapter->base.name));
    adapter->base.type = pjmedia_transport_type(PJMEDIA_TRANSPORT_TYPE_USER + 1);
    adapter->base.op = &adapter_operations;
    adapter->base.grp_lock = below->grp_lock;
    adapter->below = below;
    adapter->close_below = flags & PJSUA_MED_TP_CLOSE_MEMBER;
    adapter->line = index;
    use(index);
    state->lines[index].adapters.fetch_add(1);
    pj_grp_lock_add_ref(below->grp_lock);
    pj_grp_lock_add_handler(below->grp_lock, pool, adapter, &adapter_gone);
    return &adapter->base;
}

void on_call_media_state(pjsua_call_id call_id) {
    const int index = line_of_call(call_id);
    const pjsua_conf_port_id theirs = index < 0 ? PJSUA_INVALID_ID : pjsua_call_get_conf_port(call_id);
    if (theirs != PJSUA_INVALID_ID) {
        Line &line = state->lines[index];
        if (!line.inv) {
            pjsip_inv_session *inv = pjsua_get_var()->calls[call_id].inv;
            pjsip_inv_add_ref(inv);
            std::lock_guard<std::mutex> guard(state->mutex);
            line.inv = inv;
        }
        if (line.slot == PJSUA_INVALID_ID) open_port(index);
        if (line.slot != PJSUA_INVALID_ID) {
            pjsua_conf_connect(theirs, line.slot);
            pjsua_conf_connect(line.slot, theirs);
        }
    }
    if (state->before.on_call_media_state) state->before.on_call_media_state(call_id);
}

void close_port(Line &line) {
    if (line.slot != PJSUA_INVALID_ID) pjsua_conf_remove_port(line.slot);
    line.slot = PJSUA_INVALID_ID;
}

void on_call_state(pjsua_call_id call_id, pjsip_event *event) {
    const pjsip_inv_session *inv = pjsua_get_var()->calls[call_id].inv;
    // Of a call that we hang up PJSUA says so once, before the dialog is over (its #2600), and nothing later.
    const bool over = !inv || inv->state == PJSIP_INV_STATE_DISCONNECTED || pjsua_get_var()->calls[call_id].hanging_up;
    int index = -1;
    pjsip_inv_session *held = nullptr;
    if (over) {
        std::lock_guard<std::mutex> guard(state->mutex);
        std::swap(index, state->by_call[call_id]);
        if (index >= 0) std::swap(held, state->lines[index].inv);
        state->told[call_id] = State::Told();
    }
    if (state->before.on_call_state) state->before.on_call_state(call_id, event);
    if (index >= 0) {
        close_port(state->lines[index]);
        leave(index);
    }
    if (held) pjsip_inv_dec_ref(held);
}

// PJSUA would follow a REFER by itself, and let an INVITE with Replaces take over a call: both are decisions.
void on_transfer_request(pjsua_call_id call_id, const pj_str_t *to, pjsip_status_code *code,
                         pjsua_call_setting *setting) {
    *code = PJSIP_SC_DECLINE;
    if (state->before.on_call_transfer_request2 && state->told[call_id].refers++ < REFERS_TOLD)
        state->before.on_call_transfer_request2(call_id, to, code, setting);
    *code = PJSIP_SC_DECLINE;
}
void on_replace_request(pjsua_call_id, pjsip_rx_data *, int *code, pj_str_t *, pjsua_call_setting *) {
    *code = PJSIP_SC_NOT_IMPLEMENTED;
}

bool is_refer_or_notify(const pjsip_method &method, bool ours) {
    return pjsip_method_cmp(&method, ours ? pjsip_get_refer_method() : pjsip_get_notify_method()) == 0;
}

// Python hears how our REFERs and re-INVITEs ended, and the far end's NOTIFYs: no other transaction.
void on_call_tsx_state(pjsua_call_id call_id, pjsip_transaction *tsx, pjsip_event *event) {
    const bool ours = tsx->role == PJSIP_ROLE_UAC;
    const bool ended = tsx->state >= PJSIP_TSX_STATE_COMPLETED &&
                       event->body.tsx_state.prev_state < PJSIP_TSX_STATE_COMPLETED;
    State::Told &told = state->told[call_id];
    bool tell = false;
    if (ours && ended && tsx->method.id == PJSIP_INVITE_METHOD) {
        const pjsip_inv_session *inv = pjsua_get_var()->calls[call_id].inv;
        tell = inv && inv->state == PJSIP_INV_STATE_CONFIRMED;
    } else if (ours && ended && is_refer_or_notify(tsx->method, true)) {
        told.notifies = 0;
        tell = true;
    } else if (!ours && tsx->state == PJSIP_TSX_STATE_TRYING && is_refer_or_notify(tsx->method, false)) {
        tell = told.notifies++ < NOTIFIES_TOLD;
    }
    if (tell && state->before.on_call_tsx_state) state->before.on_call_tsx_state(call_id, tsx, event);
}

// --- an account's codecs

struct Named {
    std::string name;
    unsigned clock_rate = 0;
    size_t rank = 0;
};

Named named(const pjmedia_sdp_media *media, const pj_str_t &format) {
    const pjmedia_sdp_attr *attribute = pjmedia_sdp_media_find_attr2(media, "rtpmap", &format);
    pjmedia_sdp_rtpmap map;
    if (!attribute || pjmedia_sdp_attr_get_rtpmap(attribute, &map) != PJ_SUCCESS) return {};
    return {std::string(map.enc_name.ptr, size_t(map.enc_name.slen)), map.clock_rate, 0};
}

void forget_format(pjmedia_sdp_media *media, const pj_str_t &format) {
    for (const char *kind : {"rtpmap", "fmtp"}) {
        pjmedia_sdp_attr *attribute = pjmedia_sdp_media_find_attr2(media, kind, &format);
        if (attribute) pjmedia_sdp_media_remove_attr(media, attribute);
    }
}

// The formats of these names in this order, and the telephone-events that go with one of them. PJSUA lists all codecs
// that are switched on, in an answer too: where none is left, the account's are none of those, and nothing changes.
void keep_codecs(pjmedia_sdp_media *media, const std::vector<std::string> &names) {
    std::vector<std::pair<Named, pj_str_t>> kept, events, dropped;
    for (unsigned i = 0; i < media->desc.fmt_count; ++i) {
        Named one = named(media, media->desc.fmt[i]);
        if (strcasecmp(one.name.c_str(), "telephone-event") == 0) {
            events.emplace_back(one, media->desc.fmt[i]);
            continue;
        }
        while (one.rank < names.size() && strcasecmp(names[one.rank].c_str(), one.name.c_str()) != 0) ++one.rank;
        (one.rank < names.size() ? kept : dropped).emplace_back(one, media->desc.fmt[i]);
    }
    if (kept.empty()) return;
    std::stable_sort(kept.begin(), kept.end(),
                     [](const auto &one, const auto &other) { return one.first.rank < other.first.rank; });
    for (const auto &event : events) {
        const bool used = std::any_of(kept.begin(), kept.end(), [&](const auto &codec) {
            return codec.first.clock_rate == event.first.clock_rate;
        });
        (used ? kept : dropped).push_back(event);
    }
    for (const auto &format : dropped) forget_format(media, format.second);
    media->desc.fmt_count = unsigned(kept.size());
    for (size_t i = 0; i < kept.size(); ++i) media->desc.fmt[i] = kept[i].second;
}

// Of offers and of answers, which PJSIP then compares with the offer.
void on_call_sdp_created(pjsua_call_id call_id, pjmedia_sdp_session *sdp, pj_pool_t *, const pjmedia_sdp_session *) {
    const pjsua_acc_id account = pjsua_get_var()->calls[call_id].acc_id;
    if (account < 0 || account >= int(state->codecs.size())) return;
    std::vector<std::string> names;
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        names = state->codecs[account];
    }
    if (names.empty()) return;
    for (unsigned i = 0; i < sdp->media_count; ++i)
        if (pj_stricmp2(&sdp->media[i]->desc.media, "audio") == 0 && sdp->media[i]->desc.port != 0)
            keep_codecs(sdp->media[i], names);
}

// Only what Python needs to hear. Every other callback of pjsua2 would take the GIL as well, to find that nobody
// listens: on the clock thread (conference operations), and on the thread that must send a BYE while Python is stuck.
void keep_needed(pjsua_callback &callbacks) {
    const pjsua_callback all = callbacks;
    pj_bzero(&callbacks, sizeof(callbacks));
    callbacks.on_incoming_call = all.on_incoming_call;
    callbacks.on_stream_destroyed = all.on_stream_destroyed;
    callbacks.on_dtmf_event = all.on_dtmf_event;
    callbacks.on_acc_send_request = all.on_acc_send_request;
    callbacks.on_acc_find_for_incoming = all.on_acc_find_for_incoming;
    callbacks.on_reg_state2 = all.on_reg_state2;
    callbacks.on_call_tsx_state = &on_call_tsx_state;
    callbacks.on_call_state = &on_call_state;
    callbacks.on_call_media_state = &on_call_media_state;
    callbacks.on_create_media_transport = &on_create_media_transport;
    callbacks.on_call_transfer_request2 = &on_transfer_request;
    callbacks.on_call_replace_request2 = &on_replace_request;
    callbacks.on_call_sdp_created = &on_call_sdp_created;
}

// --- threads

void end_call(int index) {
    pjsip_inv_session *inv = nullptr;
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        inv = state->lines[index].inv;
        if (inv) pjsip_inv_add_ref(inv);
    }
    if (!inv) return;
    for (int i = 0; i < BYE_TRIES && !state->quit; ++i) {
        if (pjsip_dlg_try_inc_lock(inv->dlg) == PJ_SUCCESS) {
            pjsip_tx_data *bye = nullptr;
            if (inv->state != PJSIP_INV_STATE_DISCONNECTED &&
                pjsip_inv_end_session(inv, PJSIP_SC_OK, nullptr, &bye) == PJ_SUCCESS && bye)
                pjsip_inv_send_msg(inv, bye);
            pjsip_dlg_dec_lock(inv->dlg);
            break;
        }
        pj_thread_sleep(20);
    }
    pjsip_inv_dec_ref(inv);
}

void register_thread(const char *name, pj_thread_desc description) {
    pj_thread_t *thread;
    pj_bzero(description, sizeof(pj_thread_desc));
    pj_thread_register(name, description, &thread);
}

void run_reaper() {
    static pj_thread_desc description;
    register_thread("reaper", description);
    std::unique_lock<std::mutex> guard(state->mutex);
    while (!state->quit) {
        if (state->ending.empty()) {
            state->ending_change.wait(guard);
            continue;
        }
        const int index = state->ending.front();
        state->ending.pop_front();
        guard.unlock();
        end_call(index);
        guard.lock();
    }
}

// The clock before the rest of the process, where we may: a little nicer than normal, or one above a real-time parent.
void come_first() {
    int policy;
    sched_param param;
    if (pthread_getschedparam(pthread_self(), &policy, &param) == 0 && policy != SCHED_OTHER) {
        param.sched_priority = std::min(param.sched_priority + 1, sched_get_priority_max(policy));
        pthread_setschedparam(pthread_self(), policy, &param);
    } else {
        setpriority(PRIO_PROCESS, id_t(syscall(SYS_gettid)), CLOCK_NICE);
    }
}

void run_clock(pjmedia_port *conference) {
    static pj_thread_desc description;
    register_thread("clock", description);
    come_first();
    std::vector<int16_t> mixed(FRAME_SAMPLES);
    int64_t due = now_ns();
    while (!state->quit) {
        due += TICK_NS;
        timespec at = {time_t(due / 1'000'000'000), long(due % 1'000'000'000)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
        }
        const int64_t began = now_ns();
        pjmedia_frame frame;
        pj_bzero(&frame, sizeof(frame));
        frame.buf = mixed.data();
        frame.size = mixed.size() * 2;
        frame.timestamp.u64 = state->tick.fetch_add(1) * FRAME_SAMPLES;
        pjmedia_port_get_frame(conference, &frame);
        const uint64_t one = 1;
        if (write(state->event_fd, &one, sizeof(one)) < 0) {
            // The counter is full: Python has not come for 2^64 ticks.
        }
        const int64_t ended = now_ns();
        std::lock_guard<std::mutex> guard(state->timing_mutex);
        if (state->late_us.size() < 10'000) state->late_us.push_back(uint32_t(std::max<int64_t>(0, began - due) / 1000));
        state->busy_us += uint64_t(ended - began) / 1000;
        if (began - due > RESYNC_NS) {
            due = began;
            ++state->resyncs;
        }
    }
}

}  // namespace

// --- the public class

Bridge::Bridge(unsigned lines) {
    state = new State(lines);                        // for good: PJMEDIA's threads may outlive us
    pjsua_callback &callbacks = pjsua_get_var()->ua_cfg.cb;
    state->before = callbacks;
    keep_needed(callbacks);
}

Bridge::~Bridge() = default;                        // not stop(): there may be a newer one

int Bridge::start(int event_fd) {
    state->event_fd = event_fd;
    pjmedia_port *conference = pjsua_set_no_snd_dev();
    if (!conference) return PJ_ENOTFOUND;
    state->clock = std::thread(run_clock, conference);
    state->reaper = std::thread(run_reaper);
    return PJ_SUCCESS;
}

void Bridge::stop() {
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        state->quit = true;
        state->ending_change.notify_all();
    }
    if (state->clock.joinable()) state->clock.join();
    if (state->reaper.joinable()) state->reaper.join();
}

int Bridge::claim(int call_id, unsigned limit_frames) {
    std::lock_guard<std::mutex> guard(state->mutex);
    const int index = call_id < 0 || call_id >= int(state->by_call.size()) ? -1 : state->by_call[call_id];
    if (index < 0 || state->lines[index].claimed) return index;
    use(index);
    state->lines[index].limit_frames = limit_frames;
    state->lines[index].claimed = true;
    return index;
}

void Bridge::close(int line) {
    if (line < 0 || line >= int(state->lines.size())) return;
    if (state->lines[line].claimed.exchange(false)) leave(line);
}

int Bridge::free_lines() {
    std::lock_guard<std::mutex> guard(state->mutex);
    return int(state->free.size());
}

std::string Bridge::media(int call_id) {
    pjsua_call_info call;
    pjsua_stream_info stream;
    if (pjsua_call_get_info(call_id, &call) != PJ_SUCCESS) return "";
    for (unsigned i = 0; i < call.media_cnt; ++i) {
        if (call.media[i].type != PJMEDIA_TYPE_AUDIO || call.media[i].status == PJSUA_CALL_MEDIA_NONE) continue;
        if (pjsua_call_get_stream_info(call_id, call.media[i].index, &stream) != PJ_SUCCESS) continue;
        const pjmedia_stream_info &audio = stream.info.aud;
        pjmedia_transport_info transport;
        pjmedia_transport_info_init(&transport);
        bool srtp = false;
        if (pjsua_call_get_med_transport_info(call_id, call.media[i].index, &transport) == PJ_SUCCESS) {
            const auto *secure = static_cast<const pjmedia_srtp_info *>(
                pjmedia_transport_info_get_spc_info(&transport, PJMEDIA_TRANSPORT_TYPE_SRTP));
            srtp = secure && secure->active;
        }
        const char *direction = audio.dir == PJMEDIA_DIR_ENCODING_DECODING ? "sendrecv"
                                : audio.dir == PJMEDIA_DIR_ENCODING        ? "sendonly"
                                : audio.dir == PJMEDIA_DIR_DECODING        ? "recvonly"
                                                                           : "inactive";
        char text[120];
        snprintf(text, sizeof(text), "%.*s %u %d %d %s", int(audio.fmt.encoding_name.slen),
                 audio.fmt.encoding_name.ptr, audio.fmt.clock_rate, srtp, audio.tx_event_pt > 0, direction);
        return text;
    }
    return "";
}

int Bridge::read(unsigned char *buffer, size_t size) {
    unsigned char *out = buffer;
    const unsigned char *end = buffer + size;
    for (size_t index = 0; index < state->lines.size(); ++index) {
        Line &line = state->lines[index];
        if (!line.claimed.load(std::memory_order_acquire)) continue;
        const uint32_t taken = line.taken.load(std::memory_order_acquire) * FRAME_MS;
        const uint16_t flags = uint16_t((line.rtp_at.load(std::memory_order_relaxed) ? 2 : 0) |
                                        (line.limit_hit.load(std::memory_order_relaxed) ? 4 : 0));
        uint32_t tail = line.heard_tail.load(std::memory_order_relaxed);
        const uint32_t head = line.heard_head.load(std::memory_order_acquire);
        bool news = taken != line.reported_taken || flags != line.reported_flags;
        while ((tail != head || news) && out + RECORD_BYTES <= end) {
            const bool frame = tail != head;
            const uint16_t number = uint16_t(index), all_flags = uint16_t(flags | (frame ? 1 : 0));
            const uint32_t position = frame ? line.heard_position[tail % HEARD_FRAMES] : 0;
            memset(out, 0, 16);
            memcpy(out, &number, 2);
            memcpy(out + 2, &all_flags, 2);
            memcpy(out + 4, &position, 4);
            memcpy(out + 8, &taken, 4);
            if (frame) memcpy(out + 16, &line.heard[(tail++ % HEARD_FRAMES) * FRAME_BYTES], FRAME_BYTES);
            out += RECORD_BYTES;
            news = false;
            line.reported_taken = taken;
            line.reported_flags = flags;
        }
        line.heard_tail.store(tail, std::memory_order_release);
    }
    return int((out - buffer) / RECORD_BYTES);
}

int Bridge::write(int index, const unsigned char *audio, size_t length, bool continues) {
    if (index < 0 || index >= int(state->lines.size()) || !state->lines[index].claimed) return -1;
    Line &line = state->lines[index];
    uint32_t head = line.said_head.load(std::memory_order_relaxed);
    const uint32_t tail = line.said_tail.load(std::memory_order_acquire);
    if (head == tail) {
        const uint32_t starved = line.starved.exchange(0);
        if (continues) line.replaced.fetch_add(starved, std::memory_order_relaxed);
    }
    for (size_t at = 0; at + FRAME_BYTES <= length && head - tail < SAID_FRAMES; at += FRAME_BYTES, ++head)
        memcpy(&line.said[(head % SAID_FRAMES) * FRAME_BYTES], audio + at, FRAME_BYTES);
    line.said_head.store(head, std::memory_order_release);
    return int((head - tail) * FRAME_MS);
}

int Bridge::clear(int index) {
    if (index < 0 || index >= int(state->lines.size())) return 0;
    Line &line = state->lines[index];
    const uint32_t head = line.said_head.load(std::memory_order_relaxed);
    const uint32_t tail = line.said_tail.exchange(head, std::memory_order_acq_rel);
    line.cleared.fetch_add(head - tail, std::memory_order_relaxed);
    return int((head - tail) * FRAME_MS);
}

std::string Bridge::counters(int index) {
    if (index < 0 || index >= int(state->lines.size())) return "0 0 0 0 0 0 0";
    Line &line = state->lines[index];
    char text[160];
    snprintf(text, sizeof(text), "%u %u %u %u %u %u %lld", line.taken.load(), line.replaced.load(),
             line.cleared.load(), line.overrun.load(), line.missing.load(), line.strange.load(),
             static_cast<long long>(now_ms() - line.heard_at.load()));
    return text;
}

std::string Bridge::clock() {
    std::vector<uint32_t> late;
    uint64_t busy;
    uint32_t resyncs;
    {
        std::lock_guard<std::mutex> guard(state->timing_mutex);
        late.swap(state->late_us);
        busy = std::exchange(state->busy_us, 0);
        resyncs = std::exchange(state->resyncs, 0);
    }
    std::sort(late.begin(), late.end());
    auto at = [&](double share) { return late.empty() ? 0u : late[size_t(share * double(late.size() - 1))]; };
    char text[160];
    snprintf(text, sizeof(text), "%zu %u %u %u %u %llu", late.size(), at(0.5), at(0.99), at(1.0), resyncs,
             static_cast<unsigned long long>(busy));
    return text;
}

void Bridge::networks(int account, const std::string &cidrs) {
    if (account < 0 || account >= int(state->networks.size())) return;
    std::lock_guard<std::mutex> guard(state->mutex);
    state->networks[account] = Network::parse_all(cidrs);
}

void Bridge::codecs(int account, const std::string &names) {
    if (account < 0 || account >= int(state->codecs.size())) return;
    std::istringstream words(names);
    std::lock_guard<std::mutex> guard(state->mutex);
    state->codecs[account].assign(std::istream_iterator<std::string>(words), {});
}

}  // namespace trunkline
