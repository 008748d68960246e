//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"
)

// loop is one epoll instance, which the goroutine that turns it owns with everything that is
// registered: generator and backend of the relay's measurements share one, so that what they
// cost beside the proxy is little and the same for every proxy. Add alone may be called by others.
type loop struct {
	fd     int
	events []syscall.EpollEvent
	buf    []byte // for whoever reads
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	return &loop{fd: fd, events: make([]syscall.EpollEvent, 256), buf: make([]byte, 256<<10)}, nil
}

func (l *loop) close() { _ = syscall.Close(l.fd) }

func (l *loop) add(fd int, events uint32) error { return l.control(syscall.EPOLL_CTL_ADD, fd, events) }

func (l *loop) change(fd int, events uint32) { _ = l.control(syscall.EPOLL_CTL_MOD, fd, events) }

func (l *loop) control(op, fd int, events uint32) error {
	return syscall.EpollCtl(l.fd, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// wait gives what is ready within a time; less than zero: no wait.
func (l *loop) wait(d time.Duration) ([]syscall.EpollEvent, error) {
	// epoll_pwait2, for waits of less than a millisecond; the number is the same everywhere.
	const pwait2 = 441
	limit := syscall.NsecToTimespec(int64(max(d, 0)))
	n, _, errno := syscall.Syscall6(pwait2, uintptr(l.fd), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)),
		uintptr(unsafe.Pointer(&limit)), 0, 0)
	if errno == syscall.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("waiting for sockets: %w", errno)
	}
	return l.events[:n], nil
}

// dialFrom begins a connection from a loopback address to another.
func dialFrom(from netip.Addr, to netip.AddrPort) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	const bindAddressNoPort = 24
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from.As4()}); err != nil {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("binding to %s: %w", from, err)
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return fd, nil
}

// readFD and writeFD are read(2) and write(2) with again in the place of EAGAIN, which is no error.
func readFD(fd int, p []byte) (n int, again bool, err error) { return tryIO(syscall.Read, fd, p) }

func writeFD(fd int, p []byte) (n int, again bool, err error) { return tryIO(syscall.Write, fd, p) }

func tryIO(call func(int, []byte) (int, error), fd int, p []byte) (n int, again bool, err error) {
	for {
		n, err = call(fd, p)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, true, nil
		default:
			return max(n, 0), false, err
		}
	}
}
