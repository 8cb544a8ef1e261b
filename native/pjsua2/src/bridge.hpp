/* The audio of all calls, between PJMEDIA's conference and Python.
 *
 * One clock thread of ours drives the conference every 20 ms. Each call has a *line*: a port in the conference that only
 * copies to and from two ring buffers, and an adapter around its media transport that looks at every RTP packet's source
 * address. At the end of a tick one write to an eventfd wakes Python, which reads what all lines heard in one call.
 *
 *   RTP ─► latch (adapter) ─► jitter buffer ─► conference ─► Line.put_frame ─► heard ring ─► Bridge.read ─► Python
 *   RTP ◄──────────────────── encoder ◄─────── conference ◄─ Line.get_frame ◄─ said ring  ◄─ Bridge.write ◄─ Python
 *
 * The rings have one writer and one reader and no lock, so the clock never waits for Python, busy or stuck: late, it
 * sends silence and counts it. Frames are mu-law at 8 kHz, 160 bytes, whatever the codec.
 *
 * A call ends by itself after `limit_frames`: the line falls silent and a thread of ours sends the BYE, without Python.
 */
#ifndef TRUNKLINE_BRIDGE_HPP
#define TRUNKLINE_BRIDGE_HPP

#include <cstddef>
#include <string>

namespace trunkline {

class Bridge {
public:
    /* After libInit and before libStart; one in a process. `lines`: calls that may have audio at once. */
    explicit Bridge(unsigned lines);
    ~Bridge();

    /* Starts the clock; `event_fd` is written at the end of each tick in which a line heard or said something.
     * 0, or a PJLIB status. */
    int start(int event_fd);
    void stop();

    /* The line of a call that has media: its index, or -1. To be given back by close(). 0 frames: no limit. */
    int claim(int call_id, unsigned limit_frames);
    void close(int line);

    /* Lines that nobody uses: all of them when no call is there, else one leaks. */
    int free_lines();

    /* What was negotiated: "codec rate_hz srtp telephone_events direction", empty without active audio. */
    std::string media(int call_id);

    /* All lines' records, each 16 + 160 bytes, native byte order:
     *   uint16 line, uint16 flags, uint32 position_ms, uint32 taken_ms, uint32 0, mu-law frame
     * flags: 1 the frame is there, 2 the far end's RTP has come, 4 the limit was reached. Returns how many. */
    int read(unsigned char *buffer, size_t size);

    /* Whole frames; `continues`: silence since the last frame was ours. Returns ms that wait, -1 for a line that is not
     * claimed. Frames beyond the ring are not taken. */
    int write(int line, const unsigned char *audio, size_t length, bool continues);

    /* Drops what waits: ms. */
    int clear(int line);

    /* taken replaced cleared overrun missing strange quiet_ms */
    std::string counters(int line);

    /* Ticks since the last call, and how late they began: "ticks p50_us p99_us max_us resyncs busy_us". */
    std::string clock();

    /* Networks from which RTP of this account's calls may come, besides the address the SDP names: CIDRs with spaces
     * between. */
    void networks(int account, const std::string &cidrs);

    /* What this account's calls offer and take, of the codecs there are: names with spaces between, preferred first.
     * Without a word from here it is all of them. */
    void codecs(int account, const std::string &names);
};

}  // namespace trunkline
#endif
