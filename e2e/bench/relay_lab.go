//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// lab is generator and backend of the relay's measurements: one loop, turned by the goroutine
// that measures. Only sockets that the backend accepts come in from elsewhere.
type lab struct {
	loop    *loop
	begin   time.Time
	sockets map[int]*socket // by fd
	byFD    []*socket       // the same, fast
	casts   []*socket       // backend's, in the order in which they are due

	mu       sync.Mutex // guards accepted
	accepted []*socket

	failed   error
	received int64 // bytes at the generator
	pushed   int64 // bytes that the backend has offered in floods
	replies  map[int][]byte
	dialled  int
}

// cast is what a backend's socket sends by itself.
type cast struct {
	frame  []byte // a prepared frame; its payload begins with the time when it was due
	period time.Duration
	due    time.Duration // since the lab's begin
	flood  []byte        // sent without end
}

func newLab() (*lab, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	return &lab{loop: l, begin: time.Now(), sockets: map[int]*socket{}, replies: map[int][]byte{}}, nil
}

// startLab makes one on the first core, with everything else but the proxies under measurement,
// which have the second.
func startLab() (*lab, error) {
	if _, err := stage.RaiseFiles(20_000); err != nil {
		return nil, err
	}
	if err := pinSelf(); err != nil {
		return nil, err
	}
	return newLab()
}

func (l *lab) close() {
	for _, s := range l.sockets {
		_ = syscall.Close(s.fd)
	}
	l.take()
	l.loop.close()
}

func (l *lab) now() time.Duration { return time.Since(l.begin) }

func (l *lab) fail(err error) {
	if l.failed == nil {
		l.failed = err
	}
}

func (l *lab) keep(s *socket) {
	for s.fd >= len(l.byFD) {
		l.byFD = append(l.byFD, make([]*socket, 4096)...)
	}
	l.sockets[s.fd], l.byFD[s.fd] = s, s
}

func (l *lab) forget(s *socket) {
	delete(l.sockets, s.fd)
	l.byFD[s.fd] = nil
}

// turn does what is ready, after at most d.
func (l *lab) turn(d time.Duration) error {
	if len(l.casts) > 0 {
		d = min(d, l.casts[0].cast.due-l.now())
	}
	events, err := l.loop.wait(d)
	if err != nil {
		return err
	}
	l.take()
	for _, e := range events {
		s := l.byFD[e.Fd]
		if s == nil {
			continue
		}
		if !s.open {
			l.shake(s, e.Events)
			continue
		}
		if e.Events&syscall.EPOLLOUT != 0 {
			s.writable()
		}
		if e.Events&^syscall.EPOLLOUT != 0 && !s.gone {
			s.readable()
		}
	}
	for len(l.casts) > 0 && l.casts[0].cast.due <= l.now() {
		l.castNext()
	}
	return l.failed
}

// run turns until a condition holds, or fails when a time has passed.
func (l *lab) run(ctx context.Context, limit time.Duration, what string, done func() bool) error {
	end := l.now() + limit
	for !done() {
		if err := l.turn(20 * time.Millisecond); err != nil {
			return err
		}
		if l.now() > end {
			return fmt.Errorf("%s: %w after %s", what, stage.ErrNotYet, limit)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// rest turns for a while.
func (l *lab) rest(ctx context.Context, d time.Duration) error {
	end := l.now() + d
	return l.run(ctx, d+time.Minute, "waiting", func() bool { return l.now() >= end })
}

// The generator.

// labKey is a handshake's key, and labAccept its answer.
const labKey = "d2FsbGNyYXdsZXJiZW5jaA=="

var labAccept = acceptOf(labKey) //nolint:gochecknoglobals // a constant that has to be computed

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// dial begins a session's connection through a proxy.
func (l *lab) dial(to target, id int) *socket {
	l.dialled++
	// Many sources, so that the ports of closed connections do not run out.
	fd, err := dialFrom(netip.AddrFrom4([4]byte{127, 9, 0, byte(1 + l.dialled%40)}), to.addr)
	if err != nil {
		l.fail(err)
		return nil
	}
	s := &socket{lab: l, fd: fd, client: true, id: id, message: func(*socket, byte, int64, []byte) {}}
	path, token := to.request(id)
	s.tcp = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nAuthorization: Bearer %s\r\n\r\n", path, to.addr, labKey, token)
	l.keep(s)
	if err := l.loop.add(fd, syscall.EPOLLOUT); err != nil {
		l.fail(fmt.Errorf("watching a socket: %w", err))
	}
	return s
}

// shake goes on with a handshake.
func (l *lab) shake(s *socket, events uint32) {
	if events&syscall.EPOLLOUT != 0 && bytes.HasPrefix(s.tcp, []byte("GET")) {
		if _, _, err := writeFD(s.fd, s.tcp); err != nil {
			s.end(err)
			return
		}
		s.tcp = s.tcp[:0]
		l.loop.change(s.fd, syscall.EPOLLIN)
		return
	}
	n, again, err := readFD(s.fd, l.loop.buf)
	if again {
		return
	}
	if err != nil || n == 0 {
		s.end(fmt.Errorf("in the handshake: %w", orEOF(err)))
		return
	}
	s.tcp = append(s.tcp, l.loop.buf[:n]...)
	at := bytes.Index(s.tcp, []byte("\r\n\r\n"))
	if at < 0 {
		return
	}
	if !bytes.HasPrefix(s.tcp, []byte("HTTP/1.1 101 ")) || !bytes.Contains(s.tcp[:at], []byte(labAccept)) {
		l.fail(fmt.Errorf("session %d was not upgraded: %.300q", s.id, s.tcp))
		return
	}
	early := s.tcp[at+4:]
	s.open, s.tcp = true, nil
	if len(early) > 0 {
		s.take(early)
	}
}

// openAll opens sessions, some at a time.
func (l *lab) openAll(ctx context.Context, to target, n int) ([]*socket, error) {
	const together = 64
	all := make([]*socket, 0, n)
	opened := 0
	err := l.run(ctx, 2*time.Minute, "opening sessions", func() bool {
		opened = 0
		for _, s := range all {
			if s != nil && s.open {
				opened++
			}
		}
		for len(all) < n && len(all)-opened < together && l.failed == nil {
			all = append(all, l.dial(to, len(all)))
		}
		return opened == n
	})
	return all, err
}

func (l *lab) closeAll(all []*socket) {
	for _, s := range all {
		if s != nil {
			s.drop()
		}
	}
}

// The backend.

// serve takes a session's WebSocket from the container's HTTP server into the loop.
func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	l.adopt(w, r, &socket{message: l.answer})
}

// adopt makes a server's WebSocket one of the loop's.
func (l *lab) adopt(w http.ResponseWriter, r *http.Request, s *socket) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close() // the loop has a descriptor of its own
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		acceptOf(r.Header.Get("Sec-Websocket-Key")))
	tcp, ok := conn.(*net.TCPConn)
	if err != nil || !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	fd := -1
	_ = raw.Control(func(own uintptr) {
		const dupCloexec = 1030
		if n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, own, dupCloexec, 0); errno == 0 {
			fd = int(n)
		}
	})
	if fd < 0 {
		return
	}
	s.lab, s.fd, s.open, s.lost = l, fd, true, func(*socket) {}
	l.mu.Lock()
	l.accepted = append(l.accepted, s)
	l.mu.Unlock()
	// Level-triggered: whatever has arrived by now is told at the next turn, which takes s first.
	_ = l.loop.add(fd, syscall.EPOLLIN)
}

// take makes accepted sockets the loop's.
func (l *lab) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.accepted {
		l.keep(s)
	}
	l.accepted = l.accepted[:0]
}

// answer is the backend's part: "S=n;…" gets n bytes, "C=size,fps;" a screencast, "P=size;" a
// flood of messages.
func (l *lab) answer(s *socket, op byte, _ int64, head []byte) {
	if op == opClose {
		s.write(frame(opClose, head, false))
		s.drop()
		return
	}
	text, _, _ := strings.Cut(string(head), ";")
	kind, args, _ := strings.Cut(text, "=")
	first, second, _ := strings.Cut(args, ",")
	size, err := strconv.Atoi(first)
	if err != nil {
		l.fail(fmt.Errorf("the backend does not understand %q", head))
		return
	}
	switch kind {
	case "S":
		if l.replies[size] == nil {
			l.replies[size] = frame(opText, bytes.Repeat([]byte("r"), size), false)
		}
		s.write(l.replies[size])
	case "C":
		fps, _ := strconv.Atoi(second)
		period := time.Second / time.Duration(max(fps, 1))
		// The casts of all sockets are spread over the period.
		s.cast = cast{frame: frame(opText, bytes.Repeat([]byte("c"), size), false), period: period,
			due: l.now().Truncate(period) + period + period*time.Duration(len(l.casts)%20)/20}
		l.casts = append(l.casts, s)
		l.sortCasts()
	case "P":
		s.cast.flood = frame(opText, bytes.Repeat([]byte("p"), size), false)
		s.out = append(s.out, s.cast.flood)
		s.arm(true)
	}
}

// castNext sends the frame that is due.
func (l *lab) castNext() {
	s := l.casts[0]
	l.casts = l.casts[1:]
	if s.gone {
		return
	}
	if len(s.out) == 0 {
		// The frame is shared by all that this socket will send: with nothing queued, it is free.
		at := len(s.cast.frame) - int(frameSize(s.cast.frame))
		copy(s.cast.frame[at:], fmt.Sprintf("%019d", s.cast.due))
		s.write(s.cast.frame)
	}
	s.cast.due += s.cast.period
	l.casts = append(l.casts, s)
	l.sortCasts()
}

// frameSize is the length of an unmasked frame's payload.
func frameSize(f []byte) int64 {
	switch n := f[1]; n {
	case 126:
		return int64(len(f)) - 4
	case 127:
		return int64(len(f)) - 10
	default:
		return int64(n)
	}
}

func (l *lab) sortCasts() {
	for i := len(l.casts) - 1; i > 0 && l.casts[i].cast.due < l.casts[i-1].cast.due; i-- {
		l.casts[i], l.casts[i-1] = l.casts[i-1], l.casts[i]
	}
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

var errDamaged = errors.New("a message is not what was sent")
