package tunnel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

// ends are the outer sockets of a tunnel under test: what a client and a backend hold.
type ends struct {
	client, backend *net.TCPConn
	tunnel          *tunnel.Tunnel
	result          chan tunnel.Result
}

// start joins two real TCP connections by a tunnel and runs it.
func start(t *testing.T, cfg tunnel.Config, earlyClient, earlyBackend []byte) *ends {
	t.Helper()
	client, inClient := tcpPair(t)
	backend, inBackend := tcpPair(t)
	if cfg.Keeper == nil {
		cfg.Keeper = keeperOf(t)
	}
	e := &ends{
		client:  client,
		backend: backend,
		tunnel: tunnel.New(tunnel.Peer{Conn: inClient, Early: earlyClient},
			tunnel.Peer{Conn: inBackend, Early: earlyBackend}, cfg),
		result: make(chan tunnel.Result, 1),
	}
	go func() { e.result <- e.tunnel.Run() }()
	return e
}

func tcpPair(t *testing.T) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
	}
	_ = b.SetDeadline(time.Time{})
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// wait gives the result of the tunnel, which must end.
func (e *ends) wait(t *testing.T) tunnel.Result {
	t.Helper()
	select {
	case r := <-e.result:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the tunnel has not ended")
		return tunnel.Result{}
	}
}

// frame makes a WebSocket frame by hand, so that the tests share no code with the tunnel.
func frame(opcode byte, fin, masked bool, payload []byte) []byte {
	first := opcode
	if fin {
		first |= 0x80
	}
	out := []byte{first, 0}
	switch n := len(payload); {
	case n < 126:
		out[1] = byte(n)
	case n < 1<<16:
		out[1] = 126
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out[1] = 127
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	if !masked {
		return append(out, payload...)
	}
	out[1] |= 0x80
	mask := [4]byte{0xde, 0xad, 0xbe, 0xef}
	out = append(out, mask[:]...)
	for i, b := range payload {
		out = append(out, b^mask[i%4])
	}
	return out
}

func closeFrame(code int, reason string, masked bool) []byte {
	return frame(8, true, masked, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}

// conversation is a stream with every kind of frame: three messages and a close.
func conversation(masked bool) []byte {
	return bytes.Join([][]byte{
		frame(1, true, masked, []byte(`{"id":1}`)),
		frame(9, true, masked, []byte("ping")),
		frame(2, false, masked, bytes.Repeat([]byte("ab"), 70)),
		frame(10, true, masked, nil),
		frame(0, true, masked, []byte("tail")),
		frame(1, true, masked, nil),
		closeFrame(4001, "done", masked),
	}, nil)
}

func TestBytesArriveUnchangedHoweverTheyAreCut(t *testing.T) {
	fromClient, fromBackend := conversation(true), conversation(false)
	for size := 1; size <= len(fromClient); size++ {
		e := start(t, tunnel.Config{}, nil, nil)
		go chop(e.client, fromClient, size)
		go chop(e.backend, fromBackend, size)
		atBackend, atClient := make(chan []byte, 1), make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(e.backend); atBackend <- b }()
		go func() { b, _ := io.ReadAll(e.client); atClient <- b }()
		if got := <-atBackend; !bytes.Equal(got, fromClient) {
			t.Fatalf("cut by %d: the backend got %x, want %x", size, got, fromClient)
		}
		if got := <-atClient; !bytes.Equal(got, fromBackend) {
			t.Fatalf("cut by %d: the client got %x, want %x", size, got, fromBackend)
		}
		r := e.wait(t)
		want := &tunnel.CloseFrame{Code: 4001, Reason: "done"}
		if !cmp.Equal(r.FromClient, want) || !cmp.Equal(r.FromBackend, want) {
			t.Fatalf("cut by %d: close frames %v and %v, want %v", size, r.FromClient, r.FromBackend, want)
		}
		if r.ToBackend.Messages != 3 || r.ToClient.Messages != 3 {
			t.Fatalf("cut by %d: counted %d and %d messages, want 3", size, r.ToBackend.Messages, r.ToClient.Messages)
		}
		if r.ToBackend.Bytes != uint64(len(fromClient)) || r.ToClient.Bytes != uint64(len(fromBackend)) {
			t.Fatalf("cut by %d: counted %d and %d bytes", size, r.ToBackend.Bytes, r.ToClient.Bytes)
		}
	}
}

// chop writes p in pieces and ends the stream.
func chop(conn *net.TCPConn, p []byte, size int) {
	for len(p) > 0 {
		n := min(size, len(p))
		_, _ = conn.Write(p[:n])
		p = p[n:]
	}
	_ = conn.CloseWrite()
}

func TestEarlyBytesComeFirst(t *testing.T) {
	one, two := frame(1, true, true, []byte("one")), frame(1, true, true, []byte("two"))
	hello, world := frame(1, true, false, []byte("hello")), frame(1, true, false, []byte("world"))
	e := start(t, tunnel.Config{}, one[:4], hello[:1])
	write(t, e.client, one[4:], two)
	write(t, e.backend, hello[1:], world)
	expect(t, e.backend, one, two)
	expect(t, e.client, hello, world)
	// Bytes are counted once they are written, which may be after they have been read.
	counted := func(s tunnel.Stats) bool { return s.ToBackend.Messages == 2 && s.ToClient.Messages == 2 }
	until(t, "two messages are counted each way", func() bool { return counted(e.tunnel.Stats()) })
	e.tunnel.Close(0, "")
	e.wait(t)
}

func write(t *testing.T, conn net.Conn, parts ...[]byte) {
	t.Helper()
	for _, p := range parts {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}

// expect reads exactly the parts.
func expect(t *testing.T, conn net.Conn, parts ...[]byte) {
	t.Helper()
	want := bytes.Join(parts, nil)
	got := make([]byte, len(want))
	n, err := io.ReadFull(conn, got)
	if err != nil {
		t.Fatalf("got %x and then %v, want %x", got[:n], err, want)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %x, want %x", got, want)
	}
}

// expectInto fills got.
func expectInto(t *testing.T, conn net.Conn, got []byte) {
	t.Helper()
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
}

// readPast reads past empty frames with an opcode, and returns the two bytes that begin
// another.
func readPast(t *testing.T, conn net.Conn, opcode byte) []byte {
	t.Helper()
	for {
		head := make([]byte, 2)
		expectInto(t, conn, head)
		if head[0]&0x0f != opcode {
			return head
		}
	}
}

// expectRest reads exactly the parts and then the end of the stream.
func expectRest(t *testing.T, conn net.Conn, parts ...[]byte) {
	t.Helper()
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.Join(parts, nil); !bytes.Equal(got, want) {
		t.Fatalf("got %x up to the end, want %x", got, want)
	}
}

// unmask reads one short masked frame and returns it as if it were not masked.
func unmask(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	head := make([]byte, 6)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	if head[1]&0x80 == 0 {
		t.Fatalf("frame %x is not masked", head)
	}
	payload := make([]byte, head[1]&0x7f)
	if _, err := io.ReadFull(conn, payload); err != nil {
		t.Fatal(err)
	}
	for i := range payload {
		payload[i] ^= head[2+i%4]
	}
	return append([]byte{head[0], byte(len(payload))}, payload...)
}

func TestCloseTellsBothSidesBetweenFrames(t *testing.T) {
	e := start(t, tunnel.Config{}, nil, nil)
	text, masked := frame(1, true, false, []byte("hi")), frame(1, true, true, []byte("hi"))
	write(t, e.backend, text)
	write(t, e.client, masked)
	expect(t, e.client, text)
	expect(t, e.backend, masked)
	e.tunnel.Close(1012, "draining")
	e.tunnel.Close(1000, "too late")
	want := closeFrame(1012, "draining", false)
	expectRest(t, e.client, want)
	if got := unmask(t, e.backend); !bytes.Equal(got, want) {
		t.Errorf("the backend got %x, want %x", got, want)
	}
	expectRest(t, e.backend)
	_ = e.client.Close()
	_ = e.backend.Close()
	if r := e.wait(t); r.First != tunnel.Neither || r.Err != nil || r.FromClient != nil || r.FromBackend != nil {
		t.Errorf("ended with %+v", r)
	}
	e.tunnel.Close(1000, "after the end")
}

func TestCloseAmidAFrameOnlyEndsTheStream(t *testing.T) {
	for cut := 1; cut < 12; cut++ {
		half := frame(2, true, false, make([]byte, 10))[:cut]
		e := start(t, tunnel.Config{}, nil, nil)
		write(t, e.backend, half)
		expect(t, e.client, half)
		e.tunnel.Close(1012, "draining")
		expectRest(t, e.client)
		if got := unmask(t, e.backend); !bytes.Equal(got, closeFrame(1012, "draining", false)) {
			t.Errorf("the backend got %x", got)
		}
		_ = e.client.Close()
		_ = e.backend.Close()
		e.wait(t)
	}
}

func TestCloseBetweenFragmentsIsAllowed(t *testing.T) {
	part := frame(1, false, false, []byte("part"))
	e := start(t, tunnel.Config{}, nil, nil)
	write(t, e.backend, part)
	expect(t, e.client, part)
	e.tunnel.Close(1000, "released")
	expectRest(t, e.client, closeFrame(1000, "released", false))
	_ = e.client.Close()
	_ = e.backend.Close()
	e.wait(t)
}

func TestNothingIsPutInAfterMalformedFrames(t *testing.T) {
	for name, bad := range map[string][]byte{
		"reserved bits":           {0xc1, 0x00},
		"reserved opcode":         {0x83, 0x00},
		"reserved control opcode": {0x8b, 0x00},
		"fragmented ping":         {0x09, 0x00},
		"long ping":               append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...),
		"negative length":         {0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0},
		"masked by the backend":   frame(1, true, true, []byte("x")),
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, tunnel.Config{}, nil, nil)
			write(t, e.backend, bad)
			expect(t, e.client, bad)
			e.tunnel.Close(1012, "draining")
			expectRest(t, e.client)
			_ = e.client.Close()
			_ = e.backend.Close()
			e.wait(t)
		})
	}
}

func TestCloseIsNotStoppedByASlowReader(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{}, nil, nil)
	flood := frame(2, true, false, make([]byte, 1<<20))
	_ = e.backend.SetWriteDeadline(time.Now().Add(time.Second))
	for {
		if _, err := e.backend.Write(flood); err != nil {
			break // nobody reads: the backend is stopped
		}
	}
	begun := time.Now()
	e.tunnel.Close(1012, "draining")
	e.wait(t)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v to close", took)
	}
}

func TestSlowReaderStopsItsSender(t *testing.T) {
	t.Parallel()
	e := start(t, tunnel.Config{}, nil, nil)
	_ = e.client.SetReadBuffer(4096)
	payload := make([]byte, 1<<16)
	written := 0
	_ = e.backend.SetWriteDeadline(time.Now().Add(time.Second))
	for {
		n, err := e.backend.Write(payload)
		written += n
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		if written > 256<<20 {
			t.Fatal("256 MiB were taken although nobody reads")
		}
	}
	e.tunnel.Close(0, "")
	e.wait(t)
}

func TestFiftyMegabytesBothWays(t *testing.T) {
	data := make([]byte, 50<<20)
	_, _ = rand.Read(data)
	up, down := frame(2, true, true, data), frame(2, true, false, data)
	e := start(t, tunnel.Config{}, nil, nil)
	go func() { _, _ = e.client.Write(up) }()
	go func() { _, _ = e.backend.Write(down) }()
	atBackend := make(chan bool, 1)
	go func() {
		got := make([]byte, len(up))
		_, err := io.ReadFull(e.backend, got)
		atBackend <- err == nil && bytes.Equal(got, up)
	}()
	got := make([]byte, len(down))
	if _, err := io.ReadFull(e.client, got); err != nil || !bytes.Equal(got, down) {
		t.Errorf("the client's bytes differ: %v", err)
	}
	if !<-atBackend {
		t.Error("the backend's bytes differ")
	}
	e.tunnel.Close(1000, "released")
	_ = e.client.Close()
	_ = e.backend.Close()
	if r := e.wait(t); r.ToClient != (tunnel.Flow{Bytes: uint64(len(down)), Messages: 1}) {
		t.Errorf("counted %+v", r.ToClient)
	}
}

func TestConnectionsThatAreNotTCPWorkToo(t *testing.T) {
	client, inClient := net.Pipe()
	backend, inBackend := net.Pipe()
	tun := tunnel.New(tunnel.Peer{Conn: inClient}, tunnel.Peer{Conn: inBackend}, tunnel.Config{Keeper: keeperOf(t)})
	done := make(chan tunnel.Result, 1)
	go func() { done <- tun.Run() }()
	hi := frame(1, true, true, []byte("hi"))
	go func() { _, _ = client.Write(hi) }()
	expect(t, backend, hi)
	go func() { _, _ = io.Copy(io.Discard, backend) }()
	tun.Close(1001, "going away")
	expect(t, client, closeFrame(1001, "going away", false))
	_ = client.Close()
	_ = backend.Close()
	<-done
}

func TestAPanicEndsThatTunnelAlone(t *testing.T) {
	_, inClient := tcpPair(t)
	_, inBackend := tcpPair(t)
	tun := tunnel.New(tunnel.Peer{Conn: panicky{inClient, nil}}, tunnel.Peer{Conn: inBackend}, tunnel.Config{Keeper: keeperOf(t)})
	if r := tun.Run(); r.Err == nil || !strings.Contains(r.Err.Error(), "planted") {
		t.Errorf("ended with %v, want the panic", r.Err)
	}
}

// The same while the other direction waits for a client that takes nothing.
func TestAPanicEndsABlockedTunnel(t *testing.T) {
	_, inClient := tcpPair(t)
	backend, inBackend := tcpPair(t)
	at := make(chan struct{})
	tun := tunnel.New(tunnel.Peer{Conn: panicky{inClient, at}}, tunnel.Peer{Conn: inBackend}, tunnel.Config{Keeper: keeperOf(t)})
	result := make(chan tunnel.Result, 1)
	go func() { result <- tun.Run() }()
	go func() { // ends with its connection
		for large := frame(2, true, false, make([]byte, 60_000)); ; {
			if _, err := backend.Write(large); err != nil {
				return
			}
		}
	}()
	until(t, "the client takes nothing more", tun.BlockedForTest)
	close(at)
	select {
	case r := <-result:
		if r.Err == nil || !strings.Contains(r.Err.Error(), "planted") {
			t.Errorf("ended with %v, want the panic", r.Err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the tunnel has not ended")
	}
}

// panicky is a connection with a bug, which shows once at is closed; nil: at once.
type panicky struct {
	net.Conn
	at chan struct{}
}

func (p panicky) Read([]byte) (int, error) {
	if p.at != nil {
		<-p.at
	}
	panic("planted")
}

func TestNothingIsLeftBehind(t *testing.T) {
	k := keeperOf(t)
	churn := func() {
		for range 20 {
			e := start(t, tunnel.Config{BackendGone: tunnel.CloseFrame{Code: 1011}, Keeper: k}, nil, nil)
			_ = e.backend.Close()
			_, _ = io.ReadAll(e.client)
			_ = e.client.Close()
			e.wait(t)
		}
	}
	churn() // the poller and the pools come alive
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	churn()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for runtime.NumGoroutine() > goroutines || openFiles(t) > files {
		if ctx.Err() != nil {
			t.Fatalf("%d goroutines and %d files, %d and %d before", runtime.NumGoroutine(), openFiles(t), goroutines, files)
		}
		runtime.Gosched()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(entries)
}

func TestNothingIsAllocatedPerMessage(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	e := start(t, tunnel.Config{}, nil, nil)
	message := frame(1, true, true, make([]byte, 300))
	got := make([]byte, len(message))
	trip := func() {
		_, _ = e.client.Write(message)
		_, _ = io.ReadFull(e.backend, got)
	}
	trip()
	if allocs := testing.AllocsPerRun(500, trip); allocs > 0.5 {
		t.Errorf("%.2f allocations per message, want none", allocs)
	}
	e.tunnel.Close(0, "")
	e.wait(t)
}
