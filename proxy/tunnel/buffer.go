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

	// take gets what was read, and tells whether it wants more. It must not keep p.
	take func(p []byte) bool

	// owned by the caller of feed
	try   func(fd uintptr) bool // made once, so that waiting allocates nothing
	small []byte                // without raw only
	large bool                  // without raw: the last read has filled its buffer
	err   error

	// The kernel can tell with each read whether anything is left to be read. It is asked to once
	// uncounted more reads have been made, for that costs a call; below zero, never.
	uncounted int
	counted   bool
}

// init is for who finds a reset by other means, if uncounted is not below zero: the kernel does
// not tell of one.
func (s *source) init(conn net.Conn, uncounted int, take func(p []byte) bool) {
	s.conn, s.raw, s.uncounted, s.take = conn, rawConn(conn), uncounted, take
	if s.raw != nil {
		s.try = s.tryRead
	}
}

// feed waits for bytes and gives them to take: once, or again and again until take wants no
// more or more may be there at once. With an error, io.EOF included, there are none any more.
func (s *source) feed() error {
	if s.raw == nil {
		return s.feedWrapped()
	}
	err := s.raw.Read(s.try)
	if s.err != nil {
		err, s.err = s.err, nil
	}
	return err
}

// tryRead reads what is there and has it taken. It tells false, holding nothing, if the poller
// must wait: after a read that has left nothing it need not be tried in vain, because whatever
// comes from then on is news to the poller. That holds for one call of the connection's Read only.
func (s *source) tryRead(fd uintptr) bool {
	buf := buffers.Get().(*buffer)
	defer release(buf)
	for {
		n, left, errno := rawReceive(fd, buf[:], s.counted)
		switch {
		case n > 0:
			if s.uncounted > 0 {
				s.uncounted--
			} else if s.uncounted == 0 {
				s.uncounted, s.counted = -1, countQueued(fd)
			}
			return !s.take(buf[:n]) || left
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			return false
		case errno == 0:
			s.err = io.EOF
		default:
			s.err = &net.OpError{Op: "read", Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: errno}
		}
		return true
	}
}

// feedWrapped is feed for connections that have to be read to be waited for: a small buffer
// while little comes, a large one while much does.
func (s *source) feedWrapped() error {
	var buf *buffer
	p := s.small
	if s.large {
		buf = buffers.Get().(*buffer)
		defer release(buf)
		p = buf[:]
	} else if p == nil {
		p = make([]byte, smallSize)
		s.small = p
	}
	n, err := s.conn.Read(p)
	s.large = n == len(p)
	if n > 0 {
		s.take(p[:n])
		return nil // an error comes again with the next call
	}
	return err
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
