/* Our classes, as Python sees them. Included by pjsua2.i. */
%{
#include "bridge.hpp"
#include "front.hpp"
#include "refers.hpp"
%}
%include "pybuffer.i"
%pybuffer_mutable_binary(unsigned char *buffer, size_t size)
%pybuffer_binary(const unsigned char *audio, size_t length)
/* These are over in microseconds: giving up the GIL for them would cost a thread switch each. */
%nothread trunkline::Bridge::read;
%nothread trunkline::Bridge::write;
%nothread trunkline::Bridge::clear;
%nothread trunkline::Bridge::counters;
%include "bridge.hpp"
%include "front.hpp"
%include "refers.hpp"
