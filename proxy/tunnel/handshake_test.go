package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
)

func dial(t *testing.T, addr, path string, header http.Header) (tunnel.Peer, error) {
	t.Helper()
	var d net.Dialer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return tunnel.Dial(ctx, d.DialContext, addr, path, header)
}

// answering serves one connection: it reads a request's head and writes what answer makes of
// its key.
func answering(t *testing.T, answer func(key string) string) (addr string, head <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	seen := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var got []byte
		buf := make([]byte, 1024)
		for !bytes.Contains(got, []byte("\r\n\r\n")) {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			got = append(got, buf[:n]...)
		}
		seen <- string(got)
		_, after, _ := strings.Cut(string(got), "Sec-WebSocket-Key: ")
		key, _, _ := strings.Cut(after, "\r\n")
		_, _ = io.WriteString(conn, answer(key))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	return l.Addr().String(), seen
}

func good(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Accept: " + tunnel.AcceptKeyForTest(key) + "\r\n"
}

func TestDialSendsWhatItMustAndNoMore(t *testing.T) {
	addr, head := answering(t, func(key string) string { return good(key) + "\r\nearly" })
	peer, err := dial(t, addr, "/devtools/browser/x", http.Header{
		"Authorization":            {"Bearer secret"},
		"Origin":                   {"https://evil.example"},
		"Sec-Websocket-Extensions": {"permessage-deflate"},
		"Sec-Websocket-Protocol":   {"x"},
		"X-Bind-Rev":               {"7\r\nInjected: yes"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Conn.Close()
	early := append([]byte(nil), peer.Early...)
	if len(early) < 5 {
		rest := make([]byte, 5-len(early))
		_, _ = io.ReadFull(peer.Conn, rest)
		early = append(early, rest...)
	}
	if string(early) != "early" {
		t.Errorf("early bytes %q", early)
	}
	got := <-head
	for _, want := range []string{"GET /devtools/browser/x HTTP/1.1\r\n", "\r\nHost: " + addr + "\r\n", "\r\nAuthorization: Bearer secret\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the request %q lacks %q", got, want)
		}
	}
	for _, bad := range []string{"Origin", "Extensions", "Protocol", "\r\nInjected"} {
		if strings.Contains(got, bad) {
			t.Errorf("the request %q has %q", got, bad)
		}
	}
}

func TestDialRefusesEveryOtherAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(key string) string
		status int // of the HandshakeError; 0: another error
	}{
		"refusal":               {func(string) string { return "HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nnope" }, 409},
		"success":               {func(string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }, 200},
		"redirect":              {func(string) string { return "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n" }, 302},
		"upgrade required":      {func(string) string { return "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n" }, 426},
		"accept of another key": {func(string) string { return good("another") + "\r\n" }, 101},
		"two accepts":           {func(k string) string { return good(k) + "Sec-WebSocket-Accept: x\r\n\r\n" }, 101},
		"h2c":                   {func(k string) string { return strings.Replace(good(k), "WebSocket\r", "h2c\r", 1) + "\r\n" }, 101},
		"no connection header":  {func(k string) string { return strings.Replace(good(k), ", Upgrade", "", 1) + "\r\n" }, 101},
		"extension":             {func(k string) string { return good(k) + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" }, 101},
		"protocol":              {func(k string) string { return good(k) + "Sec-WebSocket-Protocol: x\r\n\r\n" }, 101},
		"chunked":               {func(k string) string { return good(k) + "Transfer-Encoding: chunked\r\n\r\n" }, 101},
		"a length":              {func(k string) string { return good(k) + "Content-Length: 5\r\n\r\n" }, 101},
		"HTTP/1.0":              {func(k string) string { return strings.Replace(good(k), "1.1", "1.0", 1) + "\r\n" }, 101},
		"huge head":             {func(k string) string { return good(k) + "X: " + strings.Repeat("x", 20<<10) + "\r\n\r\n" }, 0},
		"no HTTP":               {func(string) string { return "SSH-2.0-x\r\n\r\n" }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := answering(t, c.answer)
			peer, err := dial(t, addr, "/", nil)
			if err == nil {
				_ = peer.Conn.Close()
				t.Fatal("was taken for a good answer")
			}
			var refused *tunnel.HandshakeError
			if errors.As(err, &refused) != (c.status != 0) {
				t.Fatalf("got %v", err)
			}
			if refused != nil && refused.Status != c.status {
				t.Errorf("got status %d, want %d", refused.Status, c.status)
			}
		})
	}
}

func TestDialHandsOverARefusal(t *testing.T) {
	addr, _ := answering(t, func(string) string {
		return "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000)
	})
	_, err := dial(t, addr, "/", nil)
	var refused *tunnel.HandshakeError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v", err)
	}
	if refused.Status != 503 || refused.RetryAfter != 7*time.Second || len(refused.Body) != 4096 {
		t.Errorf("got status %d, retry after %v, %d bytes", refused.Status, refused.RetryAfter, len(refused.Body))
	}
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	addr, head := answering(t, func(string) string { return "HTTP/1.1 101 Swi" })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-head; cancel() }()
	var d net.Dialer
	if _, err := tunnel.Dial(ctx, d.DialContext, addr, "/", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestDialRefusesHostilePaths(t *testing.T) {
	for _, path := range []string{"", "x", "/a b", "/a\r\nX: y", "/\x00", "/é"} {
		refuse := func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%q was dialled", path)
			return nil, errors.ErrUnsupported
		}
		if _, err := tunnel.Dial(t.Context(), refuse, "127.0.0.1:1", path, nil); err == nil {
			t.Errorf("%q was taken", path)
		}
	}
}

func TestCheckUpgradeTakesWhatClientsSendAndNothingElse(t *testing.T) {
	const base = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, c := range map[string]struct {
		request string
		good    bool
	}{
		"as it should be":     {base, true},
		"go-rod's key":        {strings.Replace(base, "dGhlIHNhbXBsZSBub25jZQ==", "nil", 1), true},
		"upper case":          {strings.Replace(base, "websocket", "WebSocket", 1), true},
		"POST":                {strings.Replace(base, "GET", "POST", 1), false},
		"HTTP/1.0":            {strings.Replace(base, "1.1", "1.0", 1), false},
		"no connection token": {strings.Replace(base, ", Upgrade", "", 1), false},
		"h2c":                 {strings.Replace(base, "websocket", "h2c", 1), false},
		"two upgrades":        {strings.Replace(base, "websocket", "websocket, h2c", 1), false},
		"old version":         {strings.Replace(base, "13", "8", 1), false},
		"two versions":        {base + "Sec-WebSocket-Version: 13\r\n", false},
		"no key":              {strings.Replace(base, "dGhlIHNhbXBsZSBub25jZQ==", "", 1), false},
		"two keys":            {base + "Sec-WebSocket-Key: x\r\n", false},
		"body":                {base + "Content-Length: 3\r\n", false},
		"chunks":              {base + "Transfer-Encoding: chunked\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := tunnel.CheckUpgrade(parse(t, c.request+"\r\n"))
			if (err == nil) != c.good {
				t.Errorf("got %v, good is %v", err, c.good)
			}
		})
	}
}

// upgradeServer accepts upgrades through echo's wrapped writer.
func upgradeServer(t *testing.T, serve func(tunnel.Peer)) string {
	t.Helper()
	e := echo.New()
	e.GET("/", func(c echo.Context) error {
		if err := tunnel.CheckUpgrade(c.Request()); err != nil {
			return err
		}
		peer, err := tunnel.Accept(c.Response(), c.Request(), http.Header{"X-Request-Id": {"r1"}})
		if err != nil {
			return err
		}
		serve(peer)
		return nil
	})
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAcceptKeepsWhatCameEarly(t *testing.T) {
	got := make(chan []byte, 1)
	addr := upgradeServer(t, func(p tunnel.Peer) {
		defer p.Conn.Close()
		rest, _ := io.ReadAll(p.Conn)
		got <- append(p.Early, rest...)
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly bytes")
	answer := make([]byte, len("HTTP/1.1 101"))
	_, _ = io.ReadFull(conn, answer)
	if string(answer) != "HTTP/1.1 101" {
		t.Fatalf("got %q", answer)
	}
	_, _ = io.WriteString(conn, " and late ones")
	_ = conn.(*net.TCPConn).CloseWrite()
	if b := <-got; string(b) != "early bytes and late ones" {
		t.Errorf("got %q", b)
	}
}

func TestTheTwoHandshakesAndGorillaAgree(t *testing.T) {
	addr := upgradeServer(t, func(p tunnel.Peer) {
		backend, inBackend := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, backend) }()
		tun := tunnel.New(p, tunnel.Peer{Conn: inBackend}, tunnel.Config{})
		tun.Close(1012, "draining")
		tun.Run()
		_ = backend.Close()
	})
	peer, err := dial(t, addr, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = peer.Conn.Close()

	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if resp.Header.Get("X-Request-Id") != "r1" {
		t.Error("the header given is not in the answer")
	}
	_, _, err = conn.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseServiceRestart) || !strings.Contains(err.Error(), "draining") {
		t.Errorf("read %v, want close 1012 draining", err)
	}
}
