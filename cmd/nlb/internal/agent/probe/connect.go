//go:build linux

package probe

// The plain check of tcp: a connection that is opened, and reset. The kernel does
// both; no goroutine waits for it.

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

func (p *Pool) connect(pr *probe) {
	pr.began = time.Now()
	fd, err := connect(*pr.target)
	if err == nil {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
		if err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		p.finish(pr, failed("tcp", err))
		return
	}
	if fd >= len(p.flying) {
		p.flying = append(p.flying, make([]*probe, fd+1-len(p.flying))...)
	}
	p.flying[fd], pr.fd = pr, fd
	pr.lane.busy++
	pr.at = pr.began.Add(pr.target.Check.Timeout)
	p.timers.add(pr)
}

// answered ends a check whose connection was opened, or refused.
func (p *Pool) answered(pr *probe, events uint32) {
	if events&unix.EPOLLERR == 0 {
		p.finish(pr, Outcome{OK: true, Percent: -1, Reason: "tcp: connected"})
		return
	}
	errno, err := unix.GetsockoptInt(pr.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil {
		err = unix.Errno(errno)
	}
	p.finish(pr, failed("tcp", err))
}

// land closes the connection of a check. What was opened is reset.
func (p *Pool) land(pr *probe) {
	_ = unix.Close(pr.fd)
	p.flying[pr.fd], pr.fd = nil, -1
	pr.lane.leave()
}

// connect makes a socket that connects, which closes by a reset: nothing of it is
// left, neither here nor there.
func connect(t Target) (fd int, err error) {
	family := unix.AF_INET
	if t.At.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = prepare(fd, t); err == nil {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(t.At))
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
