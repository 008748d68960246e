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
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// front is a relay behind a listener of its own, as api would have it.
type front struct {
	w     *world
	relay *proxy.Relay
	addr  string
	gone  func() bool // proxy.Access.Gone
}

func (w *world) front(hold time.Duration) *front {
	w.t.Helper()
	return w.frontOf(proxy.NewRelay(proxy.RelayConfig{
		Mirror: w.mirror, Store: w.store, Secret: secretOf, Hold: hold, Registerer: w.reg,
	}))
}

func (w *world) frontOf(relay *proxy.Relay) *front {
	w.t.Helper()
	f := &front{w: w, relay: relay}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sessions/"), "/")
		public, _ := url.Parse("https://browsers.example/base")
		err := f.relay.Serve(rw, r, proxy.Access{SessionID: id, UserID: "alice", Token: "t+k", PublicURL: public, Gone: f.gone}, "/"+rest)
		if err == nil {
			return
		}
		var refusal *state.Refusal
		if !errors.As(err, &refusal) {
			w.t.Errorf("got %v, want a refusal", err)
			return
		}
		rw.Header().Set("X-Error", errors.Unwrap(refusal).Error())
		rw.Header().Set("X-Reason", string(refusal.Reason))
		rw.Header().Set("Retry-After", fmt.Sprint(refusal.RetryAfter.Seconds()))
		rw.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(rw, refusal.Error())
	}))
	w.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		f.relay.Drain(ctx, 0)
		server.CloseClientConnections()
		server.Close()
	})
	f.addr = server.Listener.Addr().String()
	return f
}

// connect opens a WebSocket, or gives the refusal.
func (f *front) connect(path string) (*websocket.Conn, *http.Response) {
	f.w.t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(f.w.t.Context(), "ws://"+f.addr+path, http.Header{"X-Custom": {"leak"}})
	if err != nil {
		if resp == nil {
			f.w.t.Fatal(err)
		}
		return nil, resp
	}
	f.w.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	return conn, resp
}

// refuses checks that a path is refused with an error, and gives the text.
func (f *front) refuses(path string, want error) (text string, head http.Header) {
	f.w.t.Helper()
	conn, resp := f.connect(path)
	if conn != nil {
		f.w.t.Fatalf("%s was accepted, want %v", path, want)
	}
	body, _ := io.ReadAll(resp.Body)
	if got := resp.Header.Get("X-Error"); got != want.Error() {
		f.w.t.Fatalf("%s was refused with %q (%s), want %v", path, got, body, want)
	}
	return string(body), resp.Header
}

// linked gives a world with a ready session ses_1 in container cnt_1.
func linked(t *testing.T) (*world, *container, *front) {
	t.Helper()
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	c.client = c.talking
	w.serving("ses_1", c)
	return w, c, w.front(200 * time.Millisecond)
}

func talk(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"id":1}`)); err != nil {
		t.Fatal(err)
	}
	if _, text, err := conn.ReadMessage(); err != nil || string(text) != `{"id":1}` {
		t.Fatalf("got %q, %v", text, err)
	}
}

func TestAClientReachesItsBrowser(t *testing.T) {
	w, c, f := linked(t)
	asked := make(chan *http.Request, 10)
	c.client = func(rw http.ResponseWriter, r *http.Request) {
		asked <- r.Clone(context.Background())
		c.talking(rw, r)
	}
	for path, want := range map[string]string{
		"/sessions/ses_1/ws":                   "/sessions/ses_1/devtools/browser",
		"/sessions/ses_1/devtools/browser/abc": "/sessions/ses_1/devtools/browser",
		"/sessions/ses_1/devtools/page/ABC-1":  "/sessions/ses_1/devtools/page/ABC-1",
	} {
		conn, _ := f.connect(path)
		if conn == nil {
			t.Fatalf("%s was refused", path)
		}
		talk(t, conn)
		r := <-asked
		if r.URL.Path != want {
			t.Errorf("%s went to %s, want %s", path, r.URL.Path, want)
		}
		if r.Header.Get(wire.BindRevHeader) != fmt.Sprint(w.session("ses_1").BindRev) {
			t.Errorf("binding %q", r.Header.Get(wire.BindRevHeader))
		}
		if r.Header.Get("X-Custom") != "" || r.Header.Get("Origin") != "" {
			t.Errorf("the client's headers went on: %v", r.Header)
		}
	}
	if n := f.relay.Count(); n != 3 {
		t.Errorf("counted %d clients", n)
	}
	const counts = `
# HELP wallcrawler_relay_connections Clients joined to a browser now.
# TYPE wallcrawler_relay_connections gauge
wallcrawler_relay_connections 3
# HELP wallcrawler_relay_messages_total WebSocket messages relayed, by where they went.
# TYPE wallcrawler_relay_messages_total counter
wallcrawler_relay_messages_total{direction="to_browser"} 3
wallcrawler_relay_messages_total{direction="to_client"} 3
`
	// A message is counted when it has been written, so its answer may be here before that.
	w.await("the counts", func() bool {
		return testutil.GatherAndCompare(w.reg, strings.NewReader(counts),
			"wallcrawler_relay_connections", "wallcrawler_relay_messages_total") == nil
	})
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	w, _, f := linked(t)
	f.refuses("/sessions/ses_unknown/ws", state.ErrNotFound)
	f.refuses("/sessions/ses_1/other", state.ErrNotFound)
	f.refuses("/sessions/ses_1/devtools/page/a%20b", state.ErrNotFound)
	f.refuses("/sessions/ses_1/json/version", state.ErrNotReady) // its browser does not know what that is

	resp, err := http.Get("http://" + f.addr + "/sessions/ses_1/ws")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("X-Error"); got != state.ErrInvalid.Error() {
		t.Errorf("without an upgrade: %s", got)
	}

	w.admit("ses_over")
	if _, err := w.store.Amend(t.Context(), w.leader, state.Amendment{Session: "ses_over", Remaining: -time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_over", Reason: state.DeadlinePassed}); err != nil {
		t.Fatal(err)
	}
	w.await("the mirror", func() bool { s, ok := w.mirror.Session("ses_over"); return ok && s.Phase == state.Ended })
	if _, head := f.refuses("/sessions/ses_over/ws", state.ErrEnded); head.Get("X-Reason") != "deadline" {
		t.Errorf("reason %q", head.Get("X-Reason"))
	}

	w.admit("ses_a")
	w.admit("ses_b")
	text, head := f.refuses("/sessions/ses_b/ws", state.ErrNotReady)
	if !strings.Contains(text, "place 2") || head.Get("Retry-After") != "2" {
		t.Errorf("refused with %q, retry after %s", text, head.Get("Retry-After"))
	}

	if err := w.store.CreateDocument(t.Context(), "ses_doc", []byte(`{"sessionId":"ses_doc","status":"pending"}`), time.Hour); err != nil {
		t.Fatal(err)
	}
	f.refuses("/sessions/ses_doc/ws", state.ErrNotReady)
}

func TestAClientIsHeldUntilItsSessionIsReadyAndItsEarlyBytesAreKept(t *testing.T) {
	w := newWorld(t)
	w.links("r1")
	c := w.ready("cnt_1")
	c.client = c.echoing
	f := w.front(patience)
	w.admit("ses_1")
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /sessions/ses_1/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: nil\r\n\r\nearly bytes")
	w.bind("ses_1", c)
	o := c.expect(wire.CreateSession)
	c.hold("ses_1", o.BindRev)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: o.BindRev})
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", resp, err)
	}
	got := make([]byte, len("early bytes"))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "early bytes" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestAHeldClientLearnsThatItsSessionHasEnded(t *testing.T) {
	w := newWorld(t)
	f := w.front(patience)
	w.admit("ses_1")
	w.await("the mirror", func() bool { _, ok := w.mirror.Session("ses_1"); return ok })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, head := f.refuses("/sessions/ses_1/ws", state.ErrEnded); head.Get("X-Reason") != "failed" {
			t.Errorf("reason %q", head.Get("X-Reason"))
		}
	}()
	if _, err := w.store.End(t.Context(), w.leader, state.End{Session: "ses_1", Reason: state.Failed}); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestKnownSessionsAreReachedWhileTheStoreIsSilent(t *testing.T) {
	w, _, f := linked(t)
	w.await("the mirror", func() bool { c, ok := w.mirror.Container("cnt_1"); return ok && c.Addr != "" })
	w.store.FailWith(errors.New("gone"))
	conn, _ := f.connect("/sessions/ses_1/ws")
	if conn == nil {
		t.Fatal("was refused")
	}
	talk(t, conn)
	f.refuses("/sessions/ses_other/ws", state.ErrUnavailable)
}

func TestCloseCodesPassBothWays(t *testing.T) {
	_, c, f := linked(t)
	heard := make(chan error, 1)
	c.client = func(rw http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_, text, err := conn.ReadMessage()
		if err == nil && string(text) == "crash" {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1011, "browser_crashed"), time.Now().Add(time.Second))
			_, _, err = conn.ReadMessage()
		}
		heard <- err
	}
	conn, _ := f.connect("/sessions/ses_1/ws")
	_ = conn.WriteMessage(websocket.TextMessage, []byte("crash"))
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 1011) || !strings.Contains(err.Error(), "browser_crashed") {
		t.Errorf("the client heard %v", err)
	}
	_ = <-heard

	conn, _ = f.connect("/sessions/ses_1/ws")
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "bye"), time.Now().Add(time.Second))
	if err := <-heard; !websocket.IsCloseError(err, 4001) {
		t.Errorf("the browser heard %v", err)
	}

	conn, _ = f.connect("/sessions/ses_1/ws")
	_ = conn.Close()
	if err := <-heard; !websocket.IsCloseError(err, 1001) {
		t.Errorf("of a client that vanished the browser heard %v", err)
	}
	f.w.await("no clients", func() bool { return f.relay.Count() == 0 })
}

// A client that left while its browser was reached is no visit: its container is not told that
// one is over.
func TestAClientThatLeftBeforeItWasJoinedIsNoVisit(t *testing.T) {
	_, c, f := linked(t)
	f.gone = func() bool { return true }
	end := make(chan error, 1)
	c.client = func(rw http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(rw, r, nil)
		if err == nil {
			_, _, err = conn.ReadMessage()
			_ = conn.Close()
		}
		end <- err
	}
	if conn, resp := f.connect("/sessions/ses_1/ws"); conn != nil || resp.StatusCode == http.StatusSwitchingProtocols {
		t.Error("it was joined")
	}
	var told *websocket.CloseError
	if err := <-end; err == nil || errors.As(err, &told) && told.Code != websocket.CloseAbnormalClosure {
		t.Errorf("its container heard %v, want an end without a close frame", err)
	}
	if n := f.relay.Count(); n != 0 {
		t.Errorf("counted %d clients", n)
	}
}

func TestAVanishedContainerIsToldToTheClient(t *testing.T) {
	for amid, wanted := range map[bool]int{false: 1011, true: 1006} {
		_, c, f := linked(t)
		c.client = func(rw http.ResponseWriter, r *http.Request) {
			peer, err := tunnel.Accept(rw, r, nil)
			if err != nil {
				return
			}
			if amid {
				_, _ = peer.Conn.Write([]byte{0x82, 100, 1, 2, 3})
			}
			_ = peer.Conn.Close()
		}
		conn, _ := f.connect("/sessions/ses_1/ws")
		_, _, err := conn.ReadMessage()
		if !websocket.IsCloseError(err, wanted) && (!amid || !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("amid a frame %v: the client heard %v", amid, err)
		}
	}
}

func TestAContainerWithAnotherBindingIsAskedOnceMore(t *testing.T) {
	_, c, f := linked(t)
	for status, want := range map[int]error{404: state.ErrNotReady, 409: state.ErrNotReady, 500: state.ErrNotReady} {
		tries := 0
		c.client = func(rw http.ResponseWriter, _ *http.Request) {
			tries++
			rw.WriteHeader(status)
		}
		f.refuses("/sessions/ses_1/ws", want)
		if most := map[int]int{404: 2, 409: 2, 500: 1}[status]; tries != most {
			t.Errorf("status %d: tried %d times, want %d", status, tries, most)
		}
	}
}

func TestADrainLetsClientsFinishAndCutsTheRest(t *testing.T) {
	w, _, f := linked(t)
	first, _ := f.connect("/sessions/ses_1/ws")
	second, _ := f.connect("/sessions/ses_1/ws")
	talk(t, first)
	talk(t, second)
	w.admit("ses_waiting")
	w.await("the mirror", func() bool { _, ok := w.mirror.Session("ses_waiting"); return ok })
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.relay.Drain(t.Context(), 300*time.Millisecond)
	}()
	w.await("new clients to be refused", func() bool {
		conn, resp := f.connect("/sessions/ses_1/ws")
		if conn != nil {
			_ = conn.Close()
			return false
		}
		return resp.Header.Get("X-Error") == state.ErrDraining.Error()
	})
	_ = first.Close()
	if _, _, err := second.ReadMessage(); !websocket.IsCloseError(err, 1012) {
		t.Errorf("the client heard %v, want 1012", err)
	}
	_ = second.Close()
	<-drained
	if n := f.relay.Count(); n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

func TestADrainRefusesThoseWhoWait(t *testing.T) {
	w := newWorld(t)
	f := w.front(patience)
	w.admit("ses_1")
	w.await("the mirror", func() bool { _, ok := w.mirror.Session("ses_1"); return ok })
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.refuses("/sessions/ses_1/ws", state.ErrDraining)
	}()
	f.relay.Drain(t.Context(), time.Minute)
	<-done
}

func (f *front) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get("http://" + f.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestDiscoveryNamesOurAddresses(t *testing.T) {
	_, c, f := linked(t)
	c.client = func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sessions/ses_1/json/version":
			_, _ = io.WriteString(rw, `{"Browser":"Chrome/1","big":12345678901234567890,"webSocketDebuggerUrl":"ws://evil.example:1/devtools/browser/8a-b"}`)
		case "/sessions/ses_1/json/list":
			_, _ = io.WriteString(rw, `[{"id":"T1","type":"page","url":"http://x/","devtoolsFrontendUrl":"/evil","webSocketDebuggerUrl":"ws://evil/devtools/page/T1"},{"id":"../x"},{}]`)
		}
	}
	for _, path := range []string{"/sessions/ses_1/json/version", "/sessions/ses_1/json/version/"} {
		resp, body := f.get(t, path)
		var v struct {
			Browser string
			Big     json.Number
			URL     string `json:"webSocketDebuggerUrl"`
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if want := "wss://browsers.example/base/sessions/ses_1/devtools/browser/8a-b?token=t%2Bk"; v.URL != want {
			t.Errorf("got %s, want %s", v.URL, want)
		}
		if v.Browser != "Chrome/1" || v.Big != "12345678901234567890" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %s", body)
		}
	}
	_, body := f.get(t, "/sessions/ses_1/json/list")
	if want := `[{"id":"T1","type":"page","url":"http://x/","webSocketDebuggerUrl":"wss://browsers.example/base/sessions/ses_1/devtools/page/T1?token=t%2Bk"}]`; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

func TestHostileAnswersToDiscoveryAreNotPassedOn(t *testing.T) {
	_, c, f := linked(t)
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"huge": func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"webSocketDebuggerUrl":"ws://h/devtools/browser/a","x":"`+strings.Repeat("x", 70<<10)+`"}`)
		},
		"endless": func(rw http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := rw.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"slow": func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(http.StatusOK)
			rw.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"redirect": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://"+f.addr+"/sessions/ses_1/json/version", http.StatusFound)
		},
		"not JSON":   func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") },
		"null":       func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "null") },
		"array":      func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "[]") },
		"no browser": func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, `{"webSocketDebuggerUrl":7}`) },
		"bad id": func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"webSocketDebuggerUrl":"ws://h/devtools/browser/a?b=c"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.client = answer
			begun := time.Now()
			resp, body := f.get(t, "/sessions/ses_1/json/version")
			if resp.StatusCode != http.StatusTeapot || strings.Contains(body, "<html>") {
				t.Errorf("got status %d: %s", resp.StatusCode, body)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	resp, err := http.Post("http://"+f.addr+"/sessions/ses_1/json/version", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("X-Error"); got != state.ErrInvalid.Error() {
		t.Errorf("a POST was answered with %s", got)
	}
}
