package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// Socket is a TCP connection made by no more system calls than it takes: package net asks the
// kernel for both addresses of each connection, and for what it has just been told, and has
// the scheduler watch calls that never block. It is a net.Conn.
type Socket struct {
	// set once
	file   *os.File // what waits in Go's poller
	raw    syscall.RawConn
	remote netip.AddrPort
}

// newSocket owns fd, which must not block.
func newSocket(fd int, remote netip.AddrPort) (*Socket, error) {
	file := os.NewFile(uintptr(fd), "tcp")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &Socket{file: file, raw: raw, remote: remote}, nil
}

// Connect opens a connection to an address, of which the kernel takes at most receive bytes
// that nobody reads (it doubles that for its own needs). It waits no longer than until, and
// in no case for the end of ctx: that is looked at first.
func Connect(ctx context.Context, to netip.AddrPort, receive int, until time.Time) (*Socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := connect(to, receive, until)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return s, nil
}

func connect(to netip.AddrPort, receive int, until time.Time) (*Socket, error) {
	s, err := begin(to, receive)
	if err != nil {
		return nil, err
	}
	if err := s.connected(until); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// begin asks for a connection.
func begin(to netip.AddrPort, receive int) (*Socket, error) {
	addr, size, family := sockaddr(to)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	setOption(uintptr(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receive) // before the window is agreed on
	setOption(uintptr(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	_, _, errno := syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr)), uintptr(size))
	if errno != 0 && errno != syscall.EINPROGRESS && errno != syscall.EINTR { // interrupted, it goes on
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("connect", errno)
	}
	return newSocket(fd, to)
}

// connected waits until the other end has answered. The kernel is asked before each wait, too:
// what it told the poller before this one looked is forgotten. To ask again for what is under
// way is how it tells what has become of it.
func (s *Socket) connected(until time.Time) error {
	if err := s.file.SetWriteDeadline(until); err != nil {
		return err
	}
	addr, size, _ := sockaddr(s.remote)
	errno := syscall.Errno(0)
	err := s.raw.Write(func(fd uintptr) bool {
		for {
			_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&addr)), uintptr(size))
			if errno != syscall.EINTR {
				return errno != syscall.EALREADY && errno != syscall.EINPROGRESS
			}
		}
	})
	switch {
	case err != nil:
		return plainError(err)
	case errno != 0 && errno != syscall.EISCONN:
		return os.NewSyscallError("connect", errno)
	}
	return s.file.SetWriteDeadline(time.Time{})
}

// sockaddr is an address as the kernel wants it.
func sockaddr(to netip.AddrPort) (addr syscall.RawSockaddrInet6, size, family int) {
	port := [2]byte{byte(to.Port() >> 8), byte(to.Port())}
	if to.Addr().Is4() {
		four := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&addr)) // the smaller of the two
		four.Family, four.Addr = syscall.AF_INET, to.Addr().As4()
		four.Port = *(*uint16)(unsafe.Pointer(&port))
		return addr, syscall.SizeofSockaddrInet4, syscall.AF_INET
	}
	addr.Family, addr.Addr = syscall.AF_INET6, to.Addr().As16()
	addr.Port = *(*uint16)(unsafe.Pointer(&port))
	return addr, syscall.SizeofSockaddrInet6, syscall.AF_INET6
}

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, errno := 0, syscall.Errno(0)
	err := s.raw.Read(func(fd uintptr) bool {
		for {
			if n, errno = rawRead(fd, p); errno != syscall.EINTR {
				return errno != syscall.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, s.failed("read", plainError(err))
	case errno != 0:
		return 0, s.failed("read", os.NewSyscallError("read", errno))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (s *Socket) Write(p []byte) (n int, err error) {
	errno := syscall.Errno(0)
	err = s.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var once int
			once, errno = rawWrite(fd, p[n:])
			n += once
			if errno != 0 && errno != syscall.EINTR {
				return errno != syscall.EAGAIN
			}
		}
		return true
	})
	switch {
	case n == len(p):
		return n, nil
	case err != nil:
		return n, s.failed("write", plainError(err))
	}
	return n, s.failed("write", os.NewSyscallError("write", errno))
}

// CloseWrite ends what is sent; the other end may still send.
func (s *Socket) CloseWrite() error {
	errno := syscall.Errno(0)
	if err := s.raw.Control(func(fd uintptr) {
		_, _, errno = syscall.RawSyscall(syscall.SYS_SHUTDOWN, fd, syscall.SHUT_WR, 0)
	}); err != nil {
		return s.failed("close", plainError(err))
	}
	if errno != 0 {
		return s.failed("close", os.NewSyscallError("shutdown", errno))
	}
	return nil
}

// Close implements net.Conn.
func (s *Socket) Close() error {
	if err := s.file.Close(); err != nil {
		return s.failed("close", plainError(err))
	}
	return nil
}

// SyscallConn implements syscall.Conn.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

// RemoteAddr implements net.Conn.
func (s *Socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// LocalAddr implements net.Conn. It asks the kernel; of a closed connection nobody knows.
func (s *Socket) LocalAddr() net.Addr {
	local := &net.TCPAddr{}
	_ = s.raw.Control(func(fd uintptr) {
		switch name, _ := syscall.Getsockname(int(fd)); name := name.(type) {
		case *syscall.SockaddrInet4:
			local.IP, local.Port = name.Addr[:], name.Port
		case *syscall.SockaddrInet6:
			local.IP, local.Port = name.Addr[:], name.Port
		}
	})
	return local
}

// SetDeadline implements net.Conn.
func (s *Socket) SetDeadline(t time.Time) error { return plainError(s.file.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (s *Socket) SetReadDeadline(t time.Time) error { return plainError(s.file.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (s *Socket) SetWriteDeadline(t time.Time) error { return plainError(s.file.SetWriteDeadline(t)) }

func (s *Socket) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: s.RemoteAddr(), Err: err}
}

// plainError gives what a file or its raw connection fails with as a connection has it. There
// are two ways: its time has passed, or it is closed, which each of them says in its own words.
func plainError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return net.ErrClosed
}

// setOption sets what a connection can do without, and tells whether it has it now.
func setOption(fd uintptr, level, name, value int) bool {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, fd, uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return errno == 0
}

var _ interface {
	net.Conn
	syscall.Conn
} = (*Socket)(nil)
