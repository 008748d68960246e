package tunnel

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// bufferSize is large enough that screenshots cost few system calls, small enough that
	// thousands of busy tunnels fit into memory. Idle ones hold none.
	bufferSize = 32 << 10
	// smallSize is what a connection that cannot be waited for without a buffer (TLS) holds
	// while it is idle.
	smallSize = 512
)

type buffer [bufferSize]byte

// buffers is shared by all tunnels of the process. It holds no state, only spare memory.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// release gives a buffer back. Nil is none.
func release(buf *buffer) {
	if buf != nil {
		buffers.Put(buf)
	}
}

// rawConn is the connection below conn, if the kernel alone stands between us and its bytes.
func rawConn(conn net.Conn) syscall.RawConn {
	switch conn.(type) {
	case *net.TCPConn, *Socket:
	default:
		return nil
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// source reads a connection without holding a buffer while there is nothing to read.
type source struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn is not a plain TCP connection

	// owned by the caller of next
	try   func(fd uintptr) bool // made once, so that waiting allocates nothing
	small []byte                // without raw only
	large bool                  // without raw: the last read has filled its buffer
	buf   *buffer
	n     int
	err   error
}

func (s *source) init(conn net.Conn) {
	s.conn, s.raw = conn, rawConn(conn)
	if s.raw != nil {
		s.try = s.tryRead
	}
}

// next waits for bytes and returns them. They are good until the caller has given buf, which
// may be nil, to release. With an error, io.EOF included, there are none.
func (s *source) next() (p []byte, buf *buffer, err error) {
	if s.raw == nil {
		return s.nextWrapped()
	}
	err = s.raw.Read(s.try)
	buf, n, tried := s.buf, s.n, s.err
	s.buf, s.n, s.err = nil, 0, nil
	switch {
	case n > 0:
		return buf[:n], buf, nil
	case err != nil:
		return nil, nil, err
	case tried != nil:
		return nil, nil, tried
	default:
		return nil, nil, io.EOF
	}
}

// tryRead reads what is there. It tells false, holding nothing, if the poller must wait.
func (s *source) tryRead(fd uintptr) bool {
	buf := buffers.Get().(*buffer)
	for {
		n, errno := rawRead(fd, buf[:])
		switch {
		case n > 0:
			s.buf, s.n = buf, n
			return true
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			release(buf)
			return false
		default:
			release(buf)
			if errno != 0 {
				s.err = &net.OpError{Op: "read", Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: errno}
			}
			return true
		}
	}
}

// nextWrapped is next for connections that have to be read to be waited for: a small buffer
// while little comes, a large one while much does.
func (s *source) nextWrapped() ([]byte, *buffer, error) {
	for {
		var buf *buffer
		p := s.small
		if s.large {
			buf = buffers.Get().(*buffer)
			p = buf[:]
		} else if p == nil {
			p = make([]byte, smallSize)
			s.small = p
		}
		n, err := s.conn.Read(p)
		s.large = n == len(p)
		if n > 0 {
			return p[:n], buf, nil // an error comes again with the next call
		}
		release(buf)
		if err != nil {
			return nil, nil, err
		}
	}
}

// sink writes a connection, and shows whether it has to wait for its peer.
type sink struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn is not a plain TCP connection

	blocked atomic.Bool // the peer takes nothing at the moment

	// owned by the caller of write
	try func(fd uintptr) bool // made once
	p   []byte                // what is still to be written
	err error
}

func (s *sink) init(conn net.Conn) {
	s.conn, s.raw = conn, rawConn(conn)
	if s.raw != nil {
		s.try = s.tryWrite
	}
}

// write writes all of p, or tells how much of it.
func (s *sink) write(p []byte) (n int, err error) {
	if s.raw == nil {
		s.blocked.Store(true)
		n, err = s.conn.Write(p)
		s.blocked.Store(false)
		return n, err
	}
	s.p = p
	err = s.raw.Write(s.try)
	n, tried := len(p)-len(s.p), s.err
	s.p, s.err = nil, nil
	if s.blocked.Load() {
		s.blocked.Store(false)
	}
	switch {
	case n == len(p):
		return n, nil
	case tried != nil:
		return n, tried
	case err == nil:
		err = io.ErrShortWrite
	}
	return n, err
}

// tryWrite writes what is taken. It tells false if the poller must wait.
func (s *sink) tryWrite(fd uintptr) bool {
	for len(s.p) > 0 {
		n, errno := rawWrite(fd, s.p)
		switch {
		case n > 0:
			s.p = s.p[n:]
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			s.blocked.Store(true)
			return false
		default:
			s.err = &net.OpError{Op: "write", Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: errno}
			return true
		}
	}
	return true
}
