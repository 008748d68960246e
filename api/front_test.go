package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wallcrawler/wallcrawler/api"
	"github.com/wallcrawler/wallcrawler/state"
)

// atTheFront has a house serve a listener of its own, and gives a connection to it.
func atTheFront(t *testing.T, serve func(context.Context, net.Listener) error) *net.TCPConn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return conn.(*net.TCPConn)
}

func upgradeOf(token string) string {
	return "GET /sessions/ses_1/ws?token=" + token + " HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
}

// What the front refuses looks as the server's own refusals, is one answer, and the end.
func TestARefusalAtTheFront(t *testing.T) {
	h := newHouse(t)
	h.relay.answer(&state.Refusal{Err: state.ErrNotReady, Message: "wait", RetryAfter: 3 * time.Second}, nil)
	conn := atTheFront(t, h.server.Serve)
	// Bytes that come early are never a request, and do not cost the client its answer.
	_, err := io.WriteString(conn, upgradeOf(h.token("ses_1", "alice"))+strings.Repeat("POST /v1/sessions HTTP/1.1\r\nHost: a\r\n\r\n", 1000))
	must(t, err)
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	_ = resp.Body.Close()
	var refusal struct{ Code, Message string }
	must(t, json.Unmarshal(body, &refusal))
	if resp.StatusCode != http.StatusServiceUnavailable || refusal.Message != "wait" || !resp.Close ||
		resp.Header.Get("Retry-After") != "3" || resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Date") == "" {
		t.Errorf("the answer is %s, %v, %s", resp.Status, resp.Header, body)
	}
	if rest, err := io.ReadAll(reader); err != nil || len(rest) != 0 {
		t.Errorf("then came %q, %v", rest, err)
	}
}

// A relay that waits learns that its client has gone, and early bytes outlive the watch.
func TestTheFrontWatchesAClientThatWaits(t *testing.T) {
	h := newHouse(t)
	watching, stop, over := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	h.relay.answer(nil, func(w http.ResponseWriter, r *http.Request, a api.SessionAccess, _ string) error {
		ctx, unwatch := a.Watch(r.Context())
		close(watching)
		select {
		case <-ctx.Done():
			unwatch()
			over <- "gone"
			return ctx.Err()
		case <-stop:
		}
		unwatch()
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		all, err := io.ReadAll(buffered)
		over <- fmt.Sprint(string(all), err)
		return nil
	})
	conn := atTheFront(t, h.server.Serve)
	_, err := io.WriteString(conn, upgradeOf(h.token("ses_1", "alice"))+"ear")
	must(t, err)
	<-watching
	_, err = io.WriteString(conn, "ly bytes")
	must(t, err)
	must(t, conn.CloseWrite())
	close(stop)
	if got := <-over; got != "early bytes<nil>" {
		t.Errorf("the relay got %q", got)
	}

	watching, stop = make(chan struct{}), make(chan struct{})
	other := atTheFront(t, h.server.Serve)
	_, err = io.WriteString(other, upgradeOf(h.token("ses_1", "alice")))
	must(t, err)
	<-watching
	must(t, other.Close())
	if got := <-over; got != "gone" {
		t.Errorf("the relay heard %q of a client that went away", got)
	}
}

// What the front does not take goes through the server, byte for byte, on the same connection.
func TestTheFrontHandsOn(t *testing.T) {
	h := newHouse(t)
	conn := atTheFront(t, h.server.Serve)
	reader := bufio.NewReader(conn)
	for _, request := range []string{"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"} {
		half := len(request) / 2
		for _, part := range []string{request[:half], request[half:]} {
			_, err := io.WriteString(conn, part)
			must(t, err)
		}
		resp, err := http.ReadResponse(reader, nil)
		must(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if want := map[bool]int{true: 200, false: 404}[strings.Contains(request, "health")]; resp.StatusCode != want {
			t.Errorf("%q is answered with %s", request, resp.Status)
		}
	}
}

// The containers' own port lets no client in, whoever meets it there.
func TestTheContainersPortLetsNoClientIn(t *testing.T) {
	h := newHouse(t)
	conn := atTheFront(t, h.server.ServeRegistration)
	_, err := io.WriteString(conn, upgradeOf(h.token("ses_1", "alice")))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("a client is answered with %s", resp.Status)
	}
}

// A client that leaves while its browser is reached is seen to have left, and nothing of it is read.
func TestTheFrontTellsWhetherAClientIsGone(t *testing.T) {
	h := newHouse(t)
	asked, left, seen := make(chan bool), make(chan struct{}), make(chan string, 1)
	h.relay.answer(nil, func(w http.ResponseWriter, _ *http.Request, a api.SessionAccess, _ string) error {
		asked <- a.Gone()
		<-left
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		early, err := io.ReadAll(buffered) // until the end, which has come then
		seen <- fmt.Sprint(string(early), err, a.Gone())
		return nil
	})
	conn := atTheFront(t, h.server.Serve)
	_, err := io.WriteString(conn, upgradeOf(h.token("ses_1", "alice"))+"early")
	must(t, err)
	if <-asked {
		t.Error("a client that is there is taken for gone")
	}
	must(t, conn.CloseWrite())
	close(left)
	if got := <-seen; got != "early<nil> true" {
		t.Errorf("the relay got %q", got)
	}
}
