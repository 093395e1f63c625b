package links

// Changes: whether addresses, routes or rules have changed. The kernel tells; nothing
// waits for it.

import (
	"errors"

	"golang.org/x/sys/unix"
)

// changes are the groups of rtnetlink(7) that can lead packets elsewhere.
const changes = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// Follow has Changed tell what happens from now on, in the calling thread's network
// namespace. Close ends it.
func (r *Reader) Follow() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: changes}); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	r.told = fd
	return nil
}

// mostTold is how many messages one look takes in.
const mostTold = 10_000

// Changed reports whether something has changed since it was asked last, or may have.
func (r *Reader) Changed() bool {
	if r.told < 0 {
		return true // the kernel could not be asked to tell
	}
	some := false
	for range mostTold {
		_, _, err := unix.Recvfrom(r.told, nil, unix.MSG_TRUNC)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			some = true
		default:
			return some
		}
	}
	return some
}
