"""How PJSIP is set up, from our settings and trunks: in the owner's thread."""

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import pjsua2 as pj

from trunkline.errors import ConfigError
from trunkline.gateway.sip import trunks as t
from trunkline.gateway.sip.pjsip.build import PJSUA_CALLS, PUBLISHED_CALLS, TUNED
from trunkline.gateway.sip.pjsip.owner import why
from trunkline.gateway.sip.trunks import Trunk
from trunkline.settings import Sip
from trunkline.types import FRAME_MS, PCM_8K

SPARE_LINES = 16  # calls that are ending while others begin
TLS_HANDSHAKE_MS = 5000
# The jitter buffer: adaptive from one frame. A steady peer is heard 20 ms late; one that jitters pays for its jitter.
JITTER_START_MS, JITTER_MIN_MS, JITTER_MAX_START_MS, JITTER_MAX_MS = 20, 20, 200, 400
RESAMPLER_QUALITY = 4  # for G.722 and Opus, whose audio the 8 kHz conference cannot hold anyway
UNREGISTER_MS = 500  # libDestroy's own wait, after ours
SESSION_TIMER = {
    "off": pj.PJSUA_SIP_TIMER_INACTIVE,
    "optional": pj.PJSUA_SIP_TIMER_OPTIONAL,
    "required": pj.PJSUA_SIP_TIMER_REQUIRED,
}
PRACK = {
    "off": pj.PJSUA_100REL_NOT_USED,
    "optional": pj.PJSUA_100REL_OPTIONAL,
    "required": pj.PJSUA_100REL_MANDATORY,
}
SRTP = {
    "off": pj.PJMEDIA_SRTP_DISABLED,
    "optional": pj.PJMEDIA_SRTP_OPTIONAL,
    "required": pj.PJMEDIA_SRTP_MANDATORY,
}


def calls_at_most(settings: Sip, wanted: int) -> int:
    """RTP takes two ports a call, and some are to rest."""
    ports = settings.rtp_port_max - settings.rtp_port_min + 1
    return min(wanted, max(1, ports // 2 - SPARE_LINES) if TUNED else PUBLISHED_CALLS)


def endpoint_config(settings: Sip, calls: int) -> Any:
    """`calls`: at once, at most."""
    config = pj.EpConfig()
    config.logConfig.level = 2
    config.logConfig.consoleLevel = 0
    config.logConfig.msgLogging = 0
    user_agent, media = config.uaConfig, config.medConfig
    # A dialog whose BYE nobody answers stays for 32 s: when a trunk dies, all do, and as many may come by another
    user_agent.maxCalls = min(PJSUA_CALLS, 2 * calls + SPARE_LINES) if TUNED else calls
    user_agent.threadCnt = 1
    user_agent.userAgent = settings.user_agent
    user_agent.natTypeInSdp = 0  # a=X-nat is nobody's business
    for server in settings.name_servers or _system_name_servers():
        user_agent.nameserver.append(server)
    media.clockRate = media.sndClockRate = PCM_8K.rate_hz
    media.channelCount = 1
    media.ptime = media.audioFramePtime = FRAME_MS
    media.noVad = True
    media.ecTailLen = 0
    media.threadCnt = 1
    media.hasIoqueue = True
    media.quality = RESAMPLER_QUALITY
    media.maxMediaPorts = 2 * user_agent.maxCalls + 10
    media.jbInit, media.jbMinPre = JITTER_START_MS, JITTER_MIN_MS
    media.jbMaxPre, media.jbMax = JITTER_MAX_START_MS, JITTER_MAX_MS
    return config


def listen(endpoint: Any, settings: Sip, trunks: Sequence[Trunk]) -> None:
    """Raises ConfigError."""
    _open_transport(endpoint, settings, "UDP", "sip.port", settings.port)
    _open_transport(endpoint, settings, "TCP", "sip.port", settings.port)
    if settings.tls_cert is not None:
        _open_transport(endpoint, settings, "TLS", "sip.tls_port", settings.tls_port)
    elif needs_tls(trunks):
        call_over_tls(endpoint, settings)


def needs_tls(trunks: Sequence[Trunk]) -> bool:
    return any(trunk.transport == "tls" for trunk in trunks)


def call_over_tls(endpoint: Any, settings: Sip) -> None:
    """For calls of ours only, from any port, where nobody calls us so. Raises ConfigError."""
    _open_transport(endpoint, settings, "TLS", "sip.tls_port", 0)


def _open_transport(endpoint: Any, settings: Sip, name: str, key: str, port: int) -> None:
    kind = getattr(pj, f"PJSIP_TRANSPORT_{name}{'6' if ':' in settings.host else ''}")
    config = pj.TransportConfig()
    config.port = port
    config.boundAddress = settings.host
    if name == "TLS":
        _secure(config.tlsConfig, settings)
    try:
        endpoint.transportCreate(kind, config)
    except pj.Error as error:
        said = why(error)
        if "already in use" in said:
            raise ConfigError(key, port, "another port: this one is taken") from error
        raise ConfigError(
            "sip.host", settings.host, f"an address of this machine, and usable files ({said})"
        ) from error


def _secure(tls: Any, settings: Sip) -> None:
    if settings.tls_cert is not None:
        tls.certFile, tls.privKeyFile = str(settings.tls_cert), str(settings.tls_key)
    tls.CaListFile = str(settings.tls_ca or _system_certificates())
    tls.msecTimeout = TLS_HANDSHAKE_MS  # else who connects and stays silent keeps a socket
    tls.verifyServer = True
    tls.verifyClient = tls.requireClientCert = settings.tls_verify_client


def set_codecs(endpoint: Any, wanted: Sequence[str]) -> None:
    """Those and no others, preferred first."""
    names = [name.lower() for name in wanted]
    for codec in endpoint.codecEnum2():
        name = codec.codecId.partition("/")[0].lower()
        priority = 255 - names.index(name) if name in names else 0
        endpoint.codecSetPriority(codec.codecId, priority)
        if name == "opus" and priority:
            _take_mono(endpoint, codec.codecId)


def _take_mono(endpoint: Any, codec_id: str) -> None:
    """RFC 7587 6.1: neither received nor sent in stereo. PJMEDIA would add up the two channels: twice as loud, and
    clipped."""
    param = endpoint.codecGetParam(codec_id)
    for name in ("stereo", "sprop-stereo"):
        one = pj.CodecFmtp()
        one.name, one.val = name, "0"
        param.setting.decFmtp.append(one)
    endpoint.codecSetParam(codec_id, param)


def account_config(settings: Sip, trunk: Trunk) -> Any:
    config = pj.AccountConfig()
    secure = trunk.transport == "tls"
    own = settings.advertised_address if _is_outside(settings, trunk) else None
    host = own or settings.host
    user = trunk.contact_user or trunk.auth_username or "trunkline"
    config.idUri = t.address_of_record(trunk) or f"sip:trunkline@{_bracketed(host)}"
    if trunk.auth_username is not None:
        credentials = pj.AuthCredInfo("digest", "*", trunk.auth_username, 0, trunk.auth_password or "")
        config.sipConfig.authCreds.append(credentials)
    proxy = t.proxy_uri(trunk)
    if proxy is not None:
        config.sipConfig.proxies.append(proxy)
    if own is not None:
        port = settings.tls_port if secure else settings.port
        suffix = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
        contact = user if trunk.registers else "trunkline"
        config.sipConfig.contactForced = f"<sip:{contact}@{_bracketed(own)}:{port}{suffix}>"
    registration = config.regConfig
    registration.registerOnAdd = False
    registration.registrarUri = t.registrar_uri(trunk) or ""
    registration.timeoutSec = trunk.register_expires_s
    registration.retryIntervalSec = registration.firstRetryIntervalSec = 0  # registration.py's
    registration.unregWaitMsec = UNREGISTER_MS
    nat, media, calls = config.natConfig, config.mediaConfig, config.callConfig
    nat.contactRewriteUse = nat.viaRewriteUse = nat.sdpNatRewriteUse = nat.sipOutboundUse = 0
    quirks = trunk.quirks
    calls.timerUse, calls.prackUse = SESSION_TIMER[quirks.session_timer], PRACK[quirks.prack]
    calls.timerMinSESec, calls.timerSessExpiresSec = quirks.min_se_s, quirks.session_expires_s
    media.lockCodecEnabled = False  # a re-INVITE after each answer that names two codecs
    media.streamKaEnabled = False
    media.srtpUse = SRTP[trunk.srtp]
    media.srtpSecureSignaling = 1 if trunk.srtp == "required" else 0
    rtp = media.transportConfig
    rtp.port, rtp.portRange = settings.rtp_port_min, settings.rtp_port_max - settings.rtp_port_min
    rtp.randomizePort = True  # each trunk goes round the range from somewhere else; a port rests for a whole round
    if settings.host not in ("0.0.0.0", "::"):
        rtp.boundAddress = settings.host
    if own is not None:
        rtp.publicAddress = own
    if ":" in settings.host:
        media.ipv6Use = pj.PJSUA_IPV6_ENABLED
    return config


def _is_outside(settings: Sip, trunk: Trunk) -> bool:
    """Whether this trunk's peers see us by the advertised address."""
    inside = settings.local_networks
    return not trunk.peers or not all(
        any(peer.version == net.version and peer.subnet_of(net) for net in inside)  # type: ignore[arg-type]
        for peer in trunk.peers
    )


def front_table(trunks: Sequence[Trunk], account_ids: Mapping[str, int]) -> str:
    """As Front.trunks reads it."""
    rows: list[str] = []
    for trunk in trunks:
        account, user, password = account_ids[trunk.name], trunk.username or "", trunk.password or ""
        shown = f"{trunk.name}\t{account}\t{user}\t{password}\t{','.join(trunk.digest_algorithms)}"
        rows += (f"{peer}\t{shown}" for peer in trunk.peers)
    return "\n".join(rows)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _system_name_servers() -> list[str]:
    """Without any, PJSIP would ask the C library, which blocks."""
    try:
        with open("/etc/resolv.conf", encoding="ascii", errors="replace") as file:
            return re.findall(r"^\s*nameserver\s+([0-9.]+)\s*$", file.read(), re.MULTILINE)
    except OSError:
        return []


def _system_certificates() -> str:
    return ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
