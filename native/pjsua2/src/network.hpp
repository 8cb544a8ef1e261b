/* Addresses and networks, IPv4 and IPv6 alike: an IPv4 address is its mapped IPv6 one (::ffff:0:0/96). */
#ifndef TRUNKLINE_NETWORK_HPP
#define TRUNKLINE_NETWORK_HPP

#include <arpa/inet.h>
#include <pjlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace trunkline {

struct Address {
    uint8_t bytes[16] = {0};
    bool known = false;

    bool operator==(const Address &other) const { return known && other.known && !memcmp(bytes, other.bytes, 16); }

    static Address of(const char *text) {
        Address address;
        in_addr four;
        if (inet_pton(AF_INET, text, &four) == 1) {
            address.set_v4(&four);
        } else {
            address.known = inet_pton(AF_INET6, text, address.bytes) == 1;
        }
        return address;
    }
    static Address of(const pj_str_t *text) { return of(std::string(text->ptr, size_t(text->slen)).c_str()); }
    static Address of(const pj_sockaddr_t *from) {
        Address address;
        const void *raw = pj_sockaddr_get_addr(from);
        if (static_cast<const pj_sockaddr *>(from)->addr.sa_family == pj_AF_INET()) {
            address.set_v4(raw);
        } else {
            memcpy(address.bytes, raw, 16);
            address.known = true;
        }
        return address;
    }
    std::string key() const { return std::string(reinterpret_cast<const char *>(bytes), 16); }

private:
    void set_v4(const void *four) {
        bytes[10] = bytes[11] = 0xff;
        memcpy(bytes + 12, four, 4);
        known = true;
    }
};

struct Network {
    Address address;
    int bits = 0;                                    // of 128

    bool has(const Address &other) const {
        if (!address.known || !other.known) return false;
        const int whole = bits / 8, rest = bits % 8;
        if (memcmp(address.bytes, other.bytes, size_t(whole))) return false;
        return !rest || ((address.bytes[whole] ^ other.bytes[whole]) >> (8 - rest)) == 0;
    }
    /* An ADDRESS/BITS; `address.known` is false for anything else. */
    static Network parse(const std::string &cidr) {
        Network network;
        const size_t slash = cidr.find('/');
        const std::string host = cidr.substr(0, slash);
        network.address = Address::of(host.c_str());
        const int offset = host.find(':') == std::string::npos ? 96 : 0;
        network.bits = slash == std::string::npos ? 128 : offset + atoi(cidr.c_str() + slash + 1);
        if (network.bits < 0 || network.bits > 128) network.address.known = false;
        return network;
    }
    static std::vector<Network> parse_all(const std::string &cidrs) {
        std::vector<Network> networks;
        std::istringstream words(cidrs);
        for (std::string word; words >> word;) {
            const Network network = parse(word);
            if (network.address.known) networks.push_back(network);
        }
        return networks;
    }
};

}  // namespace trunkline
#endif
