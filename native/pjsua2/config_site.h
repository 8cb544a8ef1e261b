/* PJSIP for a gateway: what its compile-time limits must allow on one core, and what its defaults do wrong for us. */
#define PJ_IOQUEUE_DEFAULT_EPOLL_FLAGS  0       /* level-triggered: no epoll_ctl per packet, 15 % less CPU measured */
#define PJ_IOQUEUE_MAX_HANDLES          8192    /* two sockets a call, connections, spare */
#define PJSUA_MAX_CALLS                 1024
#define PJSUA_MAX_ACC                   256
#define PJSUA_MAX_CONF_PORTS            2304    /* two a call, and spare */
#define PJSUA_MAX_PLAYERS               32
#define PJSIP_MAX_TSX_COUNT             16383
#define PJSIP_MAX_DIALOG_COUNT          8191
#define PJSIP_MAX_TIMER_COUNT           32768
#define PJSIP_MAX_TRANSPORTS            4096
#define PJSIP_MAX_PKT_LEN               16000   /* an INVITE with Identity headers and a long SDP */
#define PJSIP_UDP_SO_RCVBUF_SIZE        4194304
#define PJSIP_UDP_SO_SNDBUF_SIZE        4194304
#define PJSIP_DONT_SWITCH_TO_TCP        1       /* an Identity header makes 1,300 bytes; a UDP trunk stays UDP */
#define PJMEDIA_HAS_VIDEO               0
#define PJMEDIA_CONF_USE_AGC            0
#define PJMEDIA_G722_DEFAULT_PCM_SHIFT  1       /* level with baresip, FreeSWITCH and Asterisk: 2 clips, and adapts then */
#define PJMEDIA_SDP_NEG_PREFER_REMOTE_CODEC_ORDER 0     /* the trunk's order of codecs is ours to set */
#define PJ_LOG_MAX_LEVEL                5
