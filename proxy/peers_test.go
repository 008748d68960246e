package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// passing is a replica that passes every client on to another, which serves as told.
type passing struct {
	t     *testing.T
	relay *proxy.Relay
	reg   *prometheus.Registry
	addr  string
	owner *httptest.Server
	errs  chan error
}

func pass(t *testing.T, serve http.HandlerFunc, change ...func(*proxy.TunnelsConfig, *proxy.Access)) *passing {
	t.Helper()
	w := newWorld(t)
	p := &passing{t: t, reg: prometheus.NewRegistry(), errs: make(chan error, 10)}
	p.relay = proxy.NewRelay(proxy.RelayConfig{Mirror: w.mirror, Store: w.store, Secret: secretOf})
	p.owner = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/internal/sessions/ses_1/ws" || r.Header.Get("Authorization") != "Bearer ticket for ses_1 at r2" {
			t.Errorf("the owner was asked %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		serve(rw, r)
	}))
	cfg := proxy.TunnelsConfig{
		Addr: func(_ context.Context, replica string) (string, bool) {
			return p.owner.Listener.Addr().String(), replica == "r2"
		},
		Ticket: func(replica string, a proxy.Access) (string, error) {
			return fmt.Sprintf("ticket for %s at %s", a.SessionID, replica), nil
		},
		Registerer: p.reg,
	}
	access := proxy.Access{SessionID: "ses_1", UserID: "u"}
	for _, c := range change {
		c(&cfg, &access)
	}
	tunnels := proxy.NewTunnels(cfg)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := tunnels.Tunnel(rw, r, "r2", access.By(p.relay)); err != nil {
			rw.WriteHeader(http.StatusTeapot)
			p.errs <- err
		}
	}))
	p.addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.owner.CloseClientConnections()
		p.owner.Close()
		p.relay.Drain(ctx, 0)
		server.Close()
	})
	return p
}

func (p *passing) connect() (*websocket.Conn, *http.Response) {
	p.t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(p.t.Context(), "ws://"+p.addr+"/", nil)
	if err != nil {
		if resp == nil {
			p.t.Fatal(err)
		}
		return nil, resp
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	return conn, resp
}

func (p *passing) counted(result string) {
	p.t.Helper()
	var expected strings.Builder
	for _, r := range []string{"failed", "opened", "refused"} {
		n := 0
		if r == result {
			n = 1
		}
		fmt.Fprintf(&expected, "wallcrawler_peer_tunnels_total{result=%q} %d\n", r, n)
	}
	text := "# HELP wallcrawler_peer_tunnels_total Clients passed on to the replica that holds their container's link, by result.\n" +
		"# TYPE wallcrawler_peer_tunnels_total counter\n" + expected.String()
	if err := testutil.GatherAndCompare(p.reg, strings.NewReader(text), "wallcrawler_peer_tunnels_total"); err != nil {
		p.t.Error(err)
	}

}

// echo sends a client's messages back until it closes.
func echo(t *testing.T) http.HandlerFunc {
	c := &container{t: t}
	return c.talking
}

func closeCode(conn *websocket.Conn) (int, string) {
	for {
		_, _, err := conn.ReadMessage()
		if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
			return closed.Code, closed.Text
		}
		if err != nil {
			return 0, err.Error()
		}
	}
}

func TestAClientIsPassedOnToTheOwner(t *testing.T) {
	p := pass(t, echo(t))
	conn, _ := p.connect()
	if conn == nil {
		t.Fatal("refused")
	}
	talk(t, conn)
	if n := p.relay.Count(); n != 1 {
		t.Errorf("%d clients are counted", n)
	}
	p.counted("opened")
}

func TestBytesThatAClientSendsEarlyReachTheOwner(t *testing.T) {
	p := pass(t, echo(t))
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	// A masked text frame "hi" rides along with the request.
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + "\x81\x82\x00\x00\x00\x00hi"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", resp, err)
	}
	frame := make([]byte, 4)
	if _, err := io.ReadFull(reader, frame); err != nil || string(frame) != "\x81\x02hi" {
		t.Fatalf("got %q, %v", frame, err)
	}
}

func TestWhatTheOwnerRefusesIsPassedThrough(t *testing.T) {
	for _, status := range []int{400, 404, 409, 410, 429, 503} {
		p := pass(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"code":"said by the owner"}`)
		})
		conn, resp := p.connect()
		if conn != nil {
			t.Fatalf("%d became an upgrade", status)
		}
		var body map[string]string
		text, _ := io.ReadAll(resp.Body)
		if err := json.Unmarshal(text, &body); err != nil || body["code"] != "said by the owner" {
			t.Errorf("%d came with %q: %v", status, text, err)
		}
		if resp.StatusCode != status || resp.Header.Get("Retry-After") != "7" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%d became %d %v", status, resp.StatusCode, resp.Header)
		}
		p.counted("refused")
	}
}

func TestAnOwnerThatCannotTakeAClientMakesItTryAgain(t *testing.T) {
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	for name, c := range map[string]struct {
		serve  http.HandlerFunc
		change func(*proxy.TunnelsConfig, *proxy.Access)
	}{
		"the ticket is refused":                  {serve: answer(401)},
		"it is forbidden":                        {serve: answer(403)},
		"the owner fails":                        {serve: answer(500)},
		"the owner answers as if it were a page": {serve: answer(200)},
		"its address is unknown": {change: func(cfg *proxy.TunnelsConfig, _ *proxy.Access) {
			cfg.Addr = func(context.Context, string) (string, bool) { return "", false }
		}},
		"it cannot be dialled": {change: func(cfg *proxy.TunnelsConfig, _ *proxy.Access) {
			cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
		}},
		"no ticket can be made": {change: func(cfg *proxy.TunnelsConfig, _ *proxy.Access) {
			cfg.Ticket = func(string, proxy.Access) (string, error) { return "", errors.New("no key") }
		}},
		"the client was passed on already": {serve: echo(t), change: func(_ *proxy.TunnelsConfig, a *proxy.Access) {
			a.Tunnelled = true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var changes []func(*proxy.TunnelsConfig, *proxy.Access)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			p := pass(t, c.serve, changes...)
			conn, resp := p.connect()
			if conn != nil || resp.StatusCode != http.StatusTeapot {
				t.Fatalf("got %v", resp.Status)
			}
			var refusal *state.Refusal
			if err := <-p.errs; !errors.As(err, &refusal) || !errors.Is(err, state.ErrNotReady) || refusal.RetryAfter == 0 {
				t.Errorf("got %v", err)
			}
			p.counted("failed")
		})
	}
}

func TestAnOwnerThatVanishesIsToldToTheClient(t *testing.T) {
	p := pass(t, func(w http.ResponseWriter, r *http.Request) {
		peer, err := tunnel.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		_ = peer.Conn.Close()
	})
	conn, _ := p.connect()
	if code, text := closeCode(conn); code != 1001 || text != "Proxy shutting down" {
		t.Errorf("the client is told %d %q", code, text)
	}
}

func TestAClosingOwnersWordsReachTheClient(t *testing.T) {
	p := pass(t, func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1011, "Container disconnected"))
	})
	conn, _ := p.connect()
	if code, text := closeCode(conn); code != 1011 || text != "Container disconnected" {
		t.Errorf("the client is told %d %q", code, text)
	}
}

func TestAClientThatVanishesIsNoCleanCloseToTheOwner(t *testing.T) {
	ended := make(chan error, 1)
	p := pass(t, func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _, err = conn.ReadMessage()
		ended <- err
	})
	conn, _ := p.connect()
	_ = conn.UnderlyingConn().Close()
	select {
	case err := <-ended:
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
			t.Errorf("the owner is told %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the owner was told nothing")
	}
}

func TestADrainTellsPassedOnClientsInTheirOwnWords(t *testing.T) {
	p := pass(t, echo(t))
	conn, _ := p.connect()
	talk(t, conn)
	go p.relay.Drain(context.Background(), 0)
	if code, text := closeCode(conn); code != 1001 || text != "Proxy shutting down" {
		t.Errorf("the client is told %d %q", code, text)
	}
	if conn, resp := p.connect(); conn != nil || resp.StatusCode != http.StatusTeapot {
		t.Fatal("a draining replica passes clients on")
	}
	if err := <-p.errs; !errors.Is(err, state.ErrDraining) {
		t.Errorf("got %v", err)
	}
}
