//go:build linux

package hostile

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/e2e/stage"
)

// upgrade is a client's request for a session's socket.
func upgrade(t *testing.T, s stage.Session) string {
	t.Helper()
	u, err := url.Parse(s.ConnectURL)
	if err != nil {
		t.Fatal("the connect URL is none")
	}
	return "GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// answerTo is a container's good answer, without the empty line that ends it.
func answerTo(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
}

// raw serves a session's socket by what is said to it, after the request.
func raw(t *testing.T, serve func(conn net.Conn, early *bufio.Reader, r *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("taking over: %v", err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		serve(conn, buffered.Reader, r)
	}
}

func dial(t *testing.T, w *world) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", w.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// A container that answers an upgrade wrongly costs its client an HTTP answer, one, before any 101;
// nothing of what it said is passed on, and the session works as soon as its container does.
func TestContainersThatAnswerAnUpgradeWrongly(t *testing.T) {
	w := newWorld(t)
	const canary = "canary-of-the-container"
	var together sync.WaitGroup // some wait for long
	good := func(r *http.Request, more string) string { return answerTo(r) + more + "\r\n" }
	for name, answer := range map[string]func(r *http.Request) string{
		"another request's accept": func(r *http.Request) string {
			return strings.Replace(good(r, ""), "Accept: ", "Accept: x", 1)
		},
		"two accepts": func(r *http.Request) string { return good(r, "Sec-WebSocket-Accept: x\r\n") },
		"no accept": func(*http.Request) string {
			return "HTTP/1.1 101 Go on\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
		},
		"an extension":       func(r *http.Request) string { return good(r, "Sec-WebSocket-Extensions: permessage-deflate\r\n") },
		"a protocol":         func(r *http.Request) string { return good(r, "Sec-WebSocket-Protocol: chat\r\n") },
		"another upgrade":    func(r *http.Request) string { return strings.Replace(good(r, ""), "websocket", "h2c", 1) },
		"no Connection":      func(r *http.Request) string { return strings.Replace(good(r, ""), "Connection: Upgrade\r\n", "", 1) },
		"HTTP/1.0":           func(r *http.Request) string { return strings.Replace(good(r, ""), "HTTP/1.1", "HTTP/1.0", 1) },
		"a 101 with a body":  func(r *http.Request) string { return good(r, "Content-Length: 5\r\n") + "12345" },
		"200":                func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + canary },
		"200 without an end": func(*http.Request) string { return "HTTP/1.1 200 OK\r\n\r\n" + canary },
		"elsewhere": func(*http.Request) string {
			return "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
		},
		"a 100 before nothing": func(*http.Request) string { return "HTTP/1.1 100 Continue\r\n\r\n" },
		"a truncated head":     func(r *http.Request) string { return answerTo(r) + "X-Canary: " + canary },
		"a giant head":         func(r *http.Request) string { return good(r, "X-A: "+strings.Repeat("a", 1<<20)+"\r\n") },
		"many headers":         func(r *http.Request) string { return good(r, strings.Repeat("X-A: b\r\n", 1<<16)) },
		"no HTTP":              func(*http.Request) string { return "\x81\x05hello\r\n\r\n" + canary },
		"nothing, and the end": func(*http.Request) string { return "" },
	} {
		together.Go(func() { t.Run(name, func(t *testing.T) { testWrongAnswer(t, w, answer, canary) }) })
	}
	together.Go(func() { t.Run("no answer ever", func(t *testing.T) { testWrongAnswer(t, w, nil, canary) }) })
	together.Wait()
}

// testWrongAnswer has a container give an answer, or none, and then a good one.
func testWrongAnswer(t *testing.T, w *world, answer func(*http.Request) string, canary string) {
	var mended atomic.Bool
	s := w.session(t, raw(t, func(conn net.Conn, early *bufio.Reader, r *http.Request) {
		switch {
		case mended.Load():
			_, _ = io.WriteString(conn, answerTo(r)+"\r\n")
			_, _ = io.Copy(io.Discard, early) // until the client has gone
		case answer == nil:
			_, _ = io.Copy(io.Discard, early)
		default:
			_, _ = io.WriteString(conn, answer(r)) // refused halfway, it fails
		}
	}))
	client := dial(t, w)
	if _, err := io.WriteString(client, upgrade(t, s)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(client)
	got, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatalf("there was no answer: %v", err)
	}
	body, err := io.ReadAll(got.Body)
	_ = got.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("the answer is %s, Retry-After %q: %s", got.Status, got.Header.Get("Retry-After"), body)
	}
	var refusal struct{ Code, Message string }
	if err := json.Unmarshal(body, &refusal); err != nil {
		t.Errorf("the answer is no refusal: %s", body)
	}
	if whole := fmt.Sprint(got.Header, string(body)); strings.Contains(whole, canary) || strings.Contains(whole, "169.254") {
		t.Errorf("what the container said was passed on: %s", whole)
	}
	_ = client.Close()

	mended.Store(true)
	again := dial(t, w)
	if _, err := io.WriteString(again, upgrade(t, s)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(again).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		t.Errorf("once it answers well, the client gets %q, %v", line, err)
	}
}

// What either side sends together with its half of the handshake comes to the other exactly once,
// whatever it is, and before all that follows.
func TestEarlyBytesComeOnceAndFirst(t *testing.T) {
	w := newWorld(t)
	for name, early := range map[string][]byte{
		"a frame":           []byte("\x81\x85\x00\x00\x00\x00hello"),
		"an empty frame":    []byte("\x81\x80\x00\x00\x00\x00"),
		"half a frame":      []byte("\x81\x85\x00"),
		"a request":         []byte("GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n"),
		"more than is read": bytes.Repeat([]byte("\x82\xfe\x00\x00\x00\x00\x00\x00"), 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			late := []byte("\x81\x84\x01\x02\x03\x04late")
			came := make(chan []byte, 1)
			s := w.session(t, raw(t, func(conn net.Conn, buffered *bufio.Reader, r *http.Request) {
				_, _ = io.WriteString(conn, answerTo(r)+"\r\n"+string(early))
				_, _ = conn.Write(late)
				all, _ := io.ReadAll(buffered) // until the client's end
				came <- all
			}))
			client := dial(t, w).(*net.TCPConn)
			written := make(chan error, 1)
			go func() { // waited for below
				_, err := client.Write(append([]byte(upgrade(t, s)), early...))
				if err == nil {
					_, err = client.Write(late)
				}
				written <- err
			}()
			reader := bufio.NewReader(client)
			got, err := http.ReadResponse(reader, nil)
			if err != nil || got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("the answer is %+v, %v", got, err)
			}
			_ = got.Body.Close()
			want := append(bytes.Clone(early), late...)
			back := make([]byte, len(want))
			if _, err := io.ReadFull(reader, back); err != nil || !bytes.Equal(back, want) {
				t.Errorf("the client got %d bytes, %.60q, want %d: %v", len(back), back, len(want), err)
			}
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			// What follows is the relay's word that the client has gone, if it stood between two frames.
			if all := <-came; !bytes.HasPrefix(all, want) || len(all) > len(want) && (all[len(want)] != 0x88 || len(all) > len(want)+131) {
				t.Errorf("the container got %d bytes, %.60q, want %d", len(all), all, len(want))
			}
			// Not once more, nor anything of an HTTP server's; a close frame it may be.
			if rest, err := io.ReadAll(reader); err != nil || len(rest) > 64 || bytes.Contains(rest, []byte("HTTP/")) {
				t.Errorf("then came %d bytes, %.60q: %v", len(rest), rest, err)
			}
		})
	}
}
