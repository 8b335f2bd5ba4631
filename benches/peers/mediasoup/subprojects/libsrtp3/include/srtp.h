// libsrtp 2 with the calls of libsrtp 3, for mediasoup's worker: those take a place for the result, where
// libsrtp 2 works in place.
#pragma once

#include <srtp2/srtp.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

// Nothing here says them.
constexpr auto srtp_err_status_buffer_small = static_cast<srtp_err_status_t>(28);
constexpr auto srtp_err_status_cryptex_err  = static_cast<srtp_err_status_t>(29);

inline srtp_err_status_t srtp_stream_remove(srtp_t ctx, unsigned int ssrc)
{
	return srtp_remove_stream(ctx, ssrc);
}

// Copies `in` to `out` and lets `work` change it there. It may grow by `growth` bytes.
template<typename Work>
inline srtp_err_status_t srtp_copied(
  const uint8_t* in, size_t in_len, uint8_t* out, size_t* out_len, size_t growth, Work work)
{
	if (in_len + growth > *out_len)
	{
		return srtp_err_status_buffer_small;
	}
	if (in != out)
	{
		std::memcpy(out, in, in_len);
	}
	int len                          = static_cast<int>(in_len);
	const srtp_err_status_t finished = work(out, &len);
	*out_len                         = static_cast<size_t>(len);
	return finished;
}

// The index of the MKI is not used: no policy of the worker's has one.
inline srtp_err_status_t srtp_protect(
  srtp_t ctx, const uint8_t* rtp, size_t rtp_len, uint8_t* srtp, size_t* srtp_len, size_t /*mki_index*/)
{
	const auto work = [ctx](void* packet, int* len) { return srtp_protect(ctx, packet, len); };
	return srtp_copied(rtp, rtp_len, srtp, srtp_len, SRTP_MAX_TAG_LEN, work);
}

inline srtp_err_status_t srtp_protect_rtcp(
  srtp_t ctx, const uint8_t* rtcp, size_t rtcp_len, uint8_t* srtcp, size_t* srtcp_len, size_t /*mki_index*/)
{
	const auto work = [ctx](void* packet, int* len) { return srtp_protect_rtcp(ctx, packet, len); };
	return srtp_copied(rtcp, rtcp_len, srtcp, srtcp_len, SRTP_MAX_TAG_LEN + SRTP_SRCTP_INDEX_LEN, work);
}

inline srtp_err_status_t srtp_unprotect(
  srtp_t ctx, const uint8_t* srtp, size_t srtp_len, uint8_t* rtp, size_t* rtp_len)
{
	const auto work = [ctx](void* packet, int* len) { return srtp_unprotect(ctx, packet, len); };
	return srtp_copied(srtp, srtp_len, rtp, rtp_len, 0, work);
}

inline srtp_err_status_t srtp_unprotect_rtcp(
  srtp_t ctx, const uint8_t* srtcp, size_t srtcp_len, uint8_t* rtcp, size_t* rtcp_len)
{
	const auto work = [ctx](void* packet, int* len) { return srtp_unprotect_rtcp(ctx, packet, len); };
	return srtp_copied(srtcp, srtcp_len, rtcp, rtcp_len, 0, work);
}
