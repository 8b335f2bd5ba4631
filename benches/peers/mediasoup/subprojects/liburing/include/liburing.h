// Debian's liburing, with what mediasoup's worker calls and 2.3 of Debian 12 lacks.
#pragma once

#include_next <liburing.h>

#if !__has_include(<liburing/io_uring_version.h>)
inline int io_uring_major_version()
{
	return 2;
}

inline int io_uring_minor_version()
{
	return 3;
}

inline void io_uring_prep_sendto(
  io_uring_sqe* sqe, int fd, const void* data, size_t len, int flags, const sockaddr* to, socklen_t to_len)
{
	io_uring_prep_send(sqe, fd, data, len, flags);
	io_uring_prep_send_set_addr(sqe, to, static_cast<__u16>(to_len));
}
#endif
