package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/state"
)

// relayOf gives a front with a relay of that kind, which is looked after.
func (w *world) relayOf(change func(*proxy.RelayConfig)) *front {
	w.t.Helper()
	cfg := proxy.RelayConfig{Mirror: w.mirror, Store: w.store, Secret: secretOf, Hold: 200 * time.Millisecond, Registerer: w.reg}
	change(&cfg)
	relay := proxy.NewRelay(cfg)
	w.background(relay.Run)
	return w.frontOf(relay)
}

// served gives a world with a ready session ses_1 in container cnt_1, and no front yet.
func served(t *testing.T) (*world, *container) {
	t.Helper()
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	c.client = c.talking
	w.serving("ses_1", c)
	return w, c
}

func TestTooManyClientsAreRefusedBeforeTheirUpgrade(t *testing.T) {
	for name, change := range map[string]func(*proxy.RelayConfig){
		"in all":   func(cfg *proxy.RelayConfig) { cfg.MaxClients = 2 },
		"per user": func(cfg *proxy.RelayConfig) { cfg.MaxClientsPerUser = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			w, c := served(t)
			f := w.relayOf(change)
			first, _ := f.connect("/sessions/ses_1/ws")
			second, _ := f.connect("/sessions/ses_1/ws")
			talk(t, first)
			talk(t, second)
			asked := 0
			c.client = func(rw http.ResponseWriter, r *http.Request) {
				asked++
				c.talking(rw, r)
			}
			_, head := f.refuses("/sessions/ses_1/ws", state.ErrFull)
			if head.Get("Retry-After") == "0" || asked != 0 {
				t.Errorf("Retry-After %s; the container was asked %d times", head.Get("Retry-After"), asked)
			}
			_ = first.Close()
			w.await("one to be gone", func() bool { return f.relay.Count() == 1 })
			third, _ := f.connect("/sessions/ses_1/ws")
			talk(t, third)
			// A place is given back by those too who were never joined.
			c.client = func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) }
			_ = third.Close()
			w.await("one to be gone", func() bool { return f.relay.Count() == 1 })
			for range 3 {
				f.refuses("/sessions/ses_1/ws", state.ErrNotReady)
			}
		})
	}
}

func TestWhatIsKnownOfClients(t *testing.T) {
	w, _ := served(t)
	f := w.relayOf(func(*proxy.RelayConfig) {})
	first, _ := f.connect("/sessions/ses_1/ws")
	talk(t, first)
	w.await("the answer to be counted", func() bool {
		all := f.relay.Connections("ses_1")
		return len(all) == 1 && all[0].MessagesToClient == 1 && all[0].MessagesToBrowser == 1
	})
	open := f.relay.Connections("ses_1")[0]
	// {"id":1} with a header of two bytes, and four of mask.
	if open.BytesToBrowser != 14 || open.BytesToClient != 10 || open.MessagesToBrowser != 1 || open.ClosedBy != "" || !open.Closed.IsZero() {
		t.Errorf("an open one: %+v", open)
	}
	if !open.LastActivity.After(open.Opened) {
		t.Errorf("active %v, opened %v", open.LastActivity, open.Opened)
	}
	_ = first.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "done"), time.Now().Add(patience))
	_, _, _ = first.ReadMessage() // the answer
	_ = first.Close()
	w.await("it to be gone", func() bool { return f.relay.Count() == 0 })
	closed := f.relay.Connections("ses_1")[0]
	if closed.ClosedBy != "client" || closed.Code != 4001 || closed.Reason != "done" || closed.Closed.Before(closed.Opened) {
		t.Errorf("a closed one: %+v", closed)
	}
	second, _ := f.connect("/sessions/ses_1/ws")
	talk(t, second)
	if all := f.relay.Connections("ses_1"); len(all) != 2 || all[0].ClosedBy != "" || all[1].Code != 4001 {
		t.Errorf("both, the latest first: %+v", all)
	}
	if got := f.relay.Connections("ses_2"); len(got) != 0 {
		t.Errorf("of another session: %+v", got)
	}
	if err := testutil.GatherAndCompare(w.reg, strings.NewReader(`
# HELP wallcrawler_relay_closed_total Relayed connections that have ended, by who ended them.
# TYPE wallcrawler_relay_closed_total counter
wallcrawler_relay_closed_total{by="backend"} 0
wallcrawler_relay_closed_total{by="client"} 1
wallcrawler_relay_closed_total{by="drain"} 0
wallcrawler_relay_closed_total{by="fault"} 0
wallcrawler_relay_closed_total{by="stalled"} 0
`), "wallcrawler_relay_closed_total"); err != nil {
		t.Error(err)
	}
}

func TestAStalledClientIsClosedAndItsBrowserStopped(t *testing.T) {
	w, c := served(t)
	f := w.relayOf(func(cfg *proxy.RelayConfig) {
		cfg.Keep = tunnel.KeeperConfig{Tick: time.Millisecond, Stall: 100 * time.Millisecond}
	})
	stopped := make(chan error, 1)
	c.client = func(rw http.ResponseWriter, r *http.Request) {
		peer, err := tunnel.Accept(rw, r, nil)
		if err != nil {
			stopped <- err
			return
		}
		defer peer.Conn.Close()
		flood := append([]byte{0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0}, make([]byte, 1<<20)...)
		_ = peer.Conn.SetWriteDeadline(time.Now().Add(patience))
		for err == nil {
			_, err = peer.Conn.Write(flood)
		}
		stopped <- err
	}
	f.connect("/sessions/ses_1/ws") // and nobody reads
	if err := <-stopped; errors.Is(err, http.ErrHandlerTimeout) || isTimeout(err) {
		t.Errorf("the browser was never cut: %v", err)
	}
	w.await("it to be gone", func() bool { return f.relay.Count() == 0 })
	if got := f.relay.Connections("ses_1")[0]; got.ClosedBy != "stalled" || got.Code != 1013 {
		t.Errorf("it ended with %+v", got)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestAClientThatADrainHasCutComesBackThroughAnotherReplica(t *testing.T) {
	w, _ := served(t)
	f := w.relayOf(func(*proxy.RelayConfig) {})
	other := w.relayOf(func(cfg *proxy.RelayConfig) { cfg.Registerer = nil })
	client, _ := f.connect("/sessions/ses_1/ws")
	talk(t, client)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.relay.Drain(t.Context(), 10*time.Millisecond)
	}()
	if _, _, err := client.ReadMessage(); !websocket.IsCloseError(err, 1012) {
		t.Fatalf("the client heard %v, want 1012", err)
	}
	_ = client.Close()
	again, _ := other.connect("/sessions/ses_1/ws")
	talk(t, again)
	<-drained
	if got := f.relay.Connections("ses_1")[0]; got.ClosedBy != "drain" || got.Code != 1012 {
		t.Errorf("it ended with %+v", got)
	}
}

func TestBothLegsMaySpeakTLS(t *testing.T) {
	// The backend is a browser behind TLS; the relay's dialer speaks it, the front serves it.
	w, c := served(t)
	backend := httptest.NewTLSServer(http.HandlerFunc(c.talking))
	t.Cleanup(backend.Close)
	roots := x509.NewCertPool()
	roots.AddCert(backend.Certificate())
	dial := proxy.NewTLSDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, backend.Listener.Addr().String())
	}, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "example.com"})
	relay := proxy.NewRelay(proxy.RelayConfig{Mirror: w.mirror, Store: w.store, Secret: secretOf, Dial: dial})
	w.background(relay.Run)
	front := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := relay.Serve(rw, r, proxy.Access{SessionID: "ses_1"}, "/ws"); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(front.Close)
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "example.com"}}
	conn, resp, err := dialer.DialContext(t.Context(), "wss://"+front.Listener.Addr().String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	talk(t, conn)
	long := strings.Repeat("long", 300_000)
	if err := conn.WriteMessage(websocket.TextMessage, []byte(long)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.ReadMessage(); err != nil || string(text) != long {
		t.Errorf("got %d bytes and %v", len(text), err)
	}
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4002, ""), time.Now().Add(patience))
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 4002) && !errors.Is(err, io.EOF) {
		t.Errorf("the client heard %v", err)
	}
	_ = conn.Close()
	w.await("it to be gone", func() bool { return relay.Count() == 0 })
	if got := relay.Connections("ses_1")[0]; got.Code != 4002 || got.ClosedBy != "client" {
		t.Errorf("it ended with %+v", got)
	}
	strangers := proxy.NewTLSDialer((&net.Dialer{}).DialContext, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "example.com"})
	if conn, err := strangers(t.Context(), "tcp", backend.Listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("a certificate of nobody's was taken")
	}
}
