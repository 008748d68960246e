package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// front meets connections before net/http's server does, for the sake of what it costs to join
// a client: if the first request is an upgrade of a session, written as clients write it, the
// front serves it, by the same handler. Everything else it hands on to the server with the
// bytes that it has read, and so is everything that is not plain: it judges nothing.
// It is the listener of that server.
type front struct {
	// set once in newFront
	listener net.Listener
	handler  http.Handler
	files    *fileGuard
	base     context.Context //nolint:containedctx // of all requests
	log      *slog.Logger

	rest   chan net.Conn // for the server
	closed chan struct{} // nothing is handed on any more
	once   sync.Once     // closes closed
	busy   sync.WaitGroup
}

const (
	// maxFront bounds the head that the front reads, in bytes: longer ones are the server's.
	maxFront = 4 << 10
	// lingerFor is how long a client has to take a refusal before its connection is closed
	// over what it has still sent.
	lingerFor = 500 * time.Millisecond
	// refuseFor bounds the writing of a refusal.
	refuseFor = 5 * time.Second
)

func newFront(ln net.Listener, base context.Context, handler http.Handler, s *Server) *front { //nolint:revive // the context is kept
	return &front{listener: ln, handler: handler, files: &s.files, base: base, log: s.log,
		rest: make(chan net.Conn), closed: make(chan struct{})}
}

// run accepts until the listener is closed.
func (f *front) run() error {
	pause := time.Duration(0)
	for {
		conn, err := f.listener.Accept()
		if err == nil {
			pause = 0
			f.files.see(conn, http.StateNew)
			f.busy.Add(1)
			go f.meet(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Open files have run out, most likely: without a pause this would be a busy loop.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		f.log.Warn("connection not accepted", "error", err, "retryIn", pause)
		select {
		case <-time.After(pause):
		case <-f.closed:
			return net.ErrClosed
		}
	}
}

// Accept implements net.Listener: it gives what is not the front's.
func (f *front) Accept() (net.Conn, error) {
	select {
	case conn := <-f.rest:
		return conn, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (f *front) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener.
func (f *front) Addr() net.Addr { return f.listener.Addr() }

// settle waits until nobody is before the front any more, or for d.
func (f *front) settle(d time.Duration) {
	gone := make(chan struct{})
	go func() { // ends with the last of them: their time is bounded
		defer close(gone)
		f.busy.Wait()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		f.log.Warn("requests cut off", "timeout", d)
	}
}

// heads are buffers for what is read first.
var heads = sync.Pool{New: func() any { return new([maxFront]byte) }} //nolint:gochecknoglobals // spare memory

// meet reads what comes first and finds out whose it is.
func (f *front) meet(conn net.Conn) {
	buf := heads.Get().(*[maxFront]byte)
	until := time.Now().Add(readHeaderTimeout)
	_ = conn.SetReadDeadline(until)
	n, err := conn.Read(buf[:])
	if err != nil {
		heads.Put(buf)
		_ = conn.Close()
		f.leave(conn, http.StateClosed)
		return
	}
	r, size := readUpgrade(buf[:n])
	if r == nil {
		read := bytes.Clone(buf[:n])
		heads.Put(buf)
		f.handOn(&begun{Conn: conn, read: read, until: until})
		return
	}
	w := &upgradeWriter{conn: conn, front: f}
	if size < n {
		w.early = bytes.Clone(buf[size:n])
	}
	heads.Put(buf)
	_ = conn.SetReadDeadline(time.Time{})
	r.RemoteAddr = conn.RemoteAddr().String()
	_ = deepen(0)
	f.serve(w, r.WithContext(f.base))
}

// deepen has the stack of this goroutine grow to what it takes to serve a request, at once: it would
// be copied three times on the way there.
//
//go:noinline
func deepen(at int) byte {
	var room [12 << 10]byte
	return room[at]
}

// leave counts a connection that is not the front's any more.
func (f *front) leave(conn net.Conn, how http.ConnState) {
	f.files.see(conn, how)
	f.busy.Done()
}

// handOn gives a connection to the server, if there is one yet.
func (f *front) handOn(conn *begun) {
	f.files.see(conn, http.StateClosed) // the server counts it anew
	defer f.busy.Done()
	select {
	case f.rest <- conn:
	case <-f.closed:
		_ = conn.Close()
	}
}

// serve answers one request, and ends the connection unless somebody has taken it over.
func (f *front) serve(w *upgradeWriter, r *http.Request) {
	defer func() {
		cause := recover()
		if w.taken && cause == nil {
			return
		}
		if cause == nil {
			w.finish()
		} else if abort, ok := cause.(error); !ok || !errors.Is(abort, http.ErrAbortHandler) {
			f.log.Error("serving a connection panicked", "stack", string(debug.Stack()))
		}
		_ = w.conn.Close()
		if !w.taken {
			w.unwatch()
			f.leave(w.conn, http.StateClosed)
		}
	}()
	f.handler.ServeHTTP(w, r)
}

// readUpgrade reads a head that asks for a session's WebSocket, and tells how long it is. Nil
// is any other, and any that is not plain: what net/http would make of that is not repeated here.
func readUpgrade(p []byte) (r *http.Request, size int) {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 || !bytes.HasPrefix(p, []byte("GET /sessions/")) {
		return nil, 0
	}
	first, rest, _ := strings.Cut(string(p[:end+2]), "\r\n")
	target, ok := strings.CutSuffix(first[len("GET "):], " HTTP/1.1")
	if !ok || !only(target, plainInTarget) || strings.Contains(target, "/json") {
		return nil, 0
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, 0
	}
	host, header, ok := readHeader(rest)
	if !ok || host == "" || !strings.EqualFold(strings.Join(header["Upgrade"], ","), "websocket") {
		return nil, 0
	}
	return &http.Request{Method: http.MethodGet, URL: u, RequestURI: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Host: host, Body: http.NoBody}, end + 4
}

// readHeader reads the lines of a header in which nothing is out of the ordinary.
func readHeader(lines string) (host string, header http.Header, ok bool) {
	header = make(http.Header, 16)
	values := make([]string, 0, 16) // one allocation for most
	for line := range strings.SplitSeq(strings.TrimSuffix(lines, "\r\n"), "\r\n") {
		name, value, found := strings.Cut(line, ":")
		value = strings.Trim(value, " ")
		if !found || name == "" || !only(name, plainInName) || !only(value, plainInValue) {
			return "", nil, false
		}
		switch key := textproto.CanonicalMIMEHeaderKey(name); key {
		case "Content-Length", "Transfer-Encoding", "Trailer", "Te", "Expect", "Pragma":
			return "", nil, false // the server has rules for these
		case "Host":
			if host != "" || !only(value, plainInHost) {
				return "", nil, false
			}
			host = value
		default:
			if old := header[key]; old != nil {
				header[key] = append(old, value)
				continue
			}
			values = append(values, value)
			header[key] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	return host, header, true
}

// only tells whether a text has no other bytes than those.
func only(text string, plain func(c byte) bool) bool {
	for i := range len(text) {
		if !plain(text[i]) {
			return false
		}
	}
	return true
}

func plainInName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

func plainInHost(c byte) bool { return plainInName(c) || c == '.' || c == ':' || c == '[' || c == ']' }

func plainInValue(c byte) bool { return c >= ' ' && c <= '~' }

func plainInTarget(c byte) bool { return c > ' ' && c <= '~' && c != '#' }

// begun is a connection of which something was read.
type begun struct {
	net.Conn

	// owned by whoever reads
	read []byte // to be read again

	until time.Time // by when the first head must be here; zero: that is settled
}

// Read implements net.Conn.
func (c *begun) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// SetReadDeadline implements net.Conn. The server's first one is for the head of the first
// request, whose time began before.
func (c *begun) SetReadDeadline(t time.Time) error {
	if until := c.until; !until.IsZero() {
		c.until = time.Time{}
		if t.IsZero() || until.Before(t) {
			t = until
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// CloseWrite ends what is sent, as the server does before it closes over unread bytes.
func (c *begun) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Bare gives the connection itself, once what was read has been read again; before, nil.
func (c *begun) Bare() net.Conn {
	if len(c.read) > 0 {
		return nil
	}
	return c.Conn
}

// upgradeWriter answers an upgrade: whoever accepts it takes the connection over, any other
// answer is the last one. It is an http.ResponseWriter and http.Hijacker, and owned by the
// handler's goroutine.
type upgradeWriter struct {
	conn   net.Conn
	front  *front
	early  []byte // that the client has sent behind its head
	taken  bool
	header http.Header
	status int
	body   bytes.Buffer

	watching chan struct{} // closed when the watch is over; nil: there is none
	heard    [1]byte       // the watch's
	came     int
}

// Header implements http.ResponseWriter.
func (w *upgradeWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *upgradeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter. What is written leaves when the handler returns.
func (w *upgradeWriter) Write(p []byte) (int, error) {
	if w.taken {
		return 0, http.ErrHijacked
	}
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Hijack implements http.Hijacker.
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.taken {
		return nil, nil, http.ErrHijacked
	}
	w.unwatch()
	w.taken = true
	w.front.leave(w.conn, http.StateHijacked)
	reader := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(w.early), w.conn), max(len(w.early), 16))
	if _, err := reader.Peek(len(w.early)); err != nil {
		return nil, nil, fmt.Errorf("keeping what came early: %w", err)
	}
	return w.conn, bufio.NewReadWriter(reader, bufio.NewWriterSize(w.conn, 16)), nil
}

// Watch derives a context that ends when the client is gone, for handlers that wait: net/http
// watches every client for that, and so would cost each what few have a need for. Its cancel
// must be called.
func (w *upgradeWriter) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if w.watching != nil || w.taken {
		return ctx, cancel
	}
	over := make(chan struct{})
	w.watching = over
	go func() { // unwatch waits for it
		defer close(over)
		var err error
		if w.came, err = w.conn.Read(w.heard[:]); err != nil && w.came == 0 && !isTimeout(err) {
			cancel()
		}
	}()
	return ctx, func() {
		w.unwatch()
		cancel()
	}
}

// Gone tells whether the client has ended the connection by now. It reads nothing.
func (w *upgradeWriter) Gone() bool {
	c, ok := w.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || errors.Is(err, syscall.ECONNRESET)
	})
	return gone || err != nil
}

// unwatch ends the watch. What it has read is early.
func (w *upgradeWriter) unwatch() {
	if w.watching == nil {
		return
	}
	_ = w.conn.SetReadDeadline(time.Unix(1, 0))
	<-w.watching
	_ = w.conn.SetReadDeadline(time.Time{})
	w.early = append(w.early, w.heard[:w.came]...)
	w.watching, w.came = nil, 0
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// finish sends the answer, and waits a moment for the client to take it: a connection that is
// closed over unread bytes is reset, and the answer is lost.
func (w *upgradeWriter) finish() {
	w.unwatch()
	w.WriteHeader(http.StatusOK)
	header := w.Header()
	header.Set("Connection", "close")
	header.Set("Content-Length", strconv.Itoa(w.body.Len()))
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	_ = header.Write(&out) // a buffer takes everything
	out.WriteString("\r\n")
	_, _ = w.body.WriteTo(&out)
	_ = w.conn.SetWriteDeadline(time.Now().Add(refuseFor))
	if _, err := w.conn.Write(out.Bytes()); err != nil {
		return
	}
	if half, ok := w.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = w.conn.SetReadDeadline(time.Now().Add(lingerFor))
		_, _ = io.Copy(io.Discard, w.conn)
	}
}
