package tunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// bufferSize is large enough that screenshots cost few system calls, small enough that
// thousands of busy tunnels fit into memory. Idle ones hold none.
const bufferSize = 32 << 10

type buffer [bufferSize]byte

// buffers is shared by all tunnels of the process. It holds no state, only spare memory.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// source reads a connection without holding a buffer while there is nothing to read.
type source struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn is not a plain TCP connection

	// owned by the caller of next
	try func(fd uintptr) bool // made once, so that waiting allocates nothing
	buf *buffer
	n   int
	err error
}

func newSource(conn net.Conn) *source {
	s := &source{conn: conn}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw, s.try = raw, s.tryRead
		}
	}
	return s
}

// next waits for bytes and returns them in a buffer, which the caller owns and gives to
// release. With an error, io.EOF included, there is none.
func (s *source) next() (*buffer, int, error) {
	if s.raw == nil {
		buf := buffers.Get().(*buffer)
		n, err := s.conn.Read(buf[:])
		if n > 0 {
			return buf, n, nil // an error comes again with the next call
		}
		release(buf)
		if err == nil {
			return s.next()
		}
		return nil, 0, err
	}
	err := s.raw.Read(s.try)
	buf, n, tried := s.buf, s.n, s.err
	s.buf, s.n, s.err = nil, 0, nil
	switch {
	case n > 0:
		return buf, n, nil
	case err != nil:
		return nil, 0, err
	case tried != nil:
		return nil, 0, tried
	default:
		return nil, 0, io.EOF
	}
}

// tryRead reads what is there. It tells false, holding nothing, if the poller must wait.
func (s *source) tryRead(fd uintptr) bool {
	buf := buffers.Get().(*buffer)
	for {
		n, err := syscall.Read(int(fd), buf[:])
		switch {
		case n > 0:
			s.buf, s.n = buf, n
			return true
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			release(buf)
			return false
		default:
			release(buf)
			if err != nil {
				s.err = &net.OpError{Op: "read", Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: err}
			}
			return true
		}
	}
}

// release gives a buffer back.
func release(buf *buffer) { buffers.Put(buf) }
