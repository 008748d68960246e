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

// taker is who gets what a source has read. accept must not keep p; false has feed return. It is no
// function of a flow because that would be one more frame on a small stack.
type taker interface{ accept(p []byte) bool }

// source reads a connection without holding a buffer while there is nothing to read.
type source struct {
	conn net.Conn
	raw  syscall.RawConn // nil: conn is not a plain TCP connection

	taker taker

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
func (s *source) init(conn net.Conn, uncounted int, taker taker) {
	s.conn, s.raw, s.uncounted, s.taker = conn, rawConn(conn), uncounted, taker
	if s.raw != nil {
		s.try = s.tryRead
	}
}

// feed waits for bytes and gives them to its taker. It returns when that wants it to, or when
// another read may find something at once. With an error, io.EOF included, nothing comes any more.
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
//
// Writing is deep down from here, and the stack that a goroutine begins with has to do: hence no
// defer, and failures made elsewhere.
func (s *source) tryRead(fd uintptr) (done bool) {
	buf := buffers.Get().(*buffer)
	n, left, errno := rawReceive(fd, buf[:], s.counted)
	for errno == syscall.EINTR {
		n, left, errno = rawReceive(fd, buf[:], s.counted)
	}
	switch {
	case n > 0:
		if s.uncounted > 0 {
			s.uncounted--
		} else if s.uncounted == 0 {
			s.uncounted, s.counted = -1, countQueued(fd)
		}
		done = !s.taker.accept(buf[:n]) || left
	case errno != syscall.EAGAIN:
		s.err = failure("read", s.conn, errno)
		done = true
	}
	buffers.Put(buf)
	return done
}

// failure is why a connection can be used no more: io.EOF without an errno.
//
//go:noinline
func failure(op string, conn net.Conn, errno syscall.Errno) error {
	if errno == 0 {
		return io.EOF
	}
	return &net.OpError{Op: op, Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: errno}
}

// feedWrapped is feed for connections that have to be read to be waited for: a small buffer
// while little comes, a large one while much does.
func (s *source) feedWrapped() error {
	var buf *buffer
	p := s.small
	if s.large {
		buf = buffers.Get().(*buffer)
		defer buffers.Put(buf)
		p = buf[:]
	} else if p == nil {
		p = make([]byte, smallSize)
		s.small = p
	}
	n, err := s.conn.Read(p)
	s.large = n == len(p)
	if n > 0 {
		s.taker.accept(p[:n])
		return nil // in any case; an error comes again with the next call
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
			s.err = failure("write", s.conn, errno)
			return true
		}
	}
	return true
}
