package proxy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// v1World is a world whose containers speak v1, with a replica that lets clients in.
type v1World struct {
	*world
	notes *v1Notes
	relay *proxy.Relay
	links *proxy.Links
	url   string // ws://…/
	stop  func() // ends the links
}

// v1Notes is what containers write down of their sessions.
type v1Notes struct {
	mu   sync.Mutex
	held map[string]map[string]string
	err  error

	counted int // calls of V1Count
}

func (n *v1Notes) counts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counted
}

func (n *v1Notes) note(container string) (set func(session, value string), erase func(session string)) {
	return func(session, value string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.held[container] == nil {
				n.held[container] = map[string]string{}
			}
			n.held[container][session] = value
		}, func(session string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			delete(n.held[container], session)
		}
}

func (n *v1Notes) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
}

func (n *v1Notes) V1Has(_ context.Context, container, session string) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.held[container][session]
	return ok, n.err
}

func (n *v1Notes) V1Count(_ context.Context, container string) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counted++
	return len(n.held[container]), n.err
}

func (n *v1Notes) V1Forget(_ context.Context, container string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.held, container)
	return n.err
}

func newV1World(t *testing.T, change ...func(*proxy.LinksConfig)) *v1World {
	t.Helper()
	w := &v1World{world: newWorld(t), notes: &v1Notes{held: map[string]map[string]string{}}}
	w.replica("r1", nil, change...)
	return w
}

// replica runs a replica's links and lets clients in. The world's own ones are those of the
// last.
func (w *v1World) replica(name string, peers proxy.Peers, change ...func(*proxy.LinksConfig)) {
	w.t.Helper()
	cfg := proxy.LinksConfig{
		Replica: name, Store: w.store, Mirror: w.mirror, Fleet: w.fleet, Secret: secretOf,
		V1: proxy.V1Config{
			Slots: w.notes, Ping: 50 * time.Millisecond, Silence: 500 * time.Millisecond,
			Probe: 200 * time.Millisecond, ProbeWait: 300 * time.Millisecond, Settle: 100 * time.Millisecond,
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	w.links = proxy.NewLinks(cfg)
	w.stop = w.background(w.links.Run)
	relay := proxy.NewRelay(proxy.RelayConfig{
		Mirror: w.mirror, Store: w.store, Secret: secretOf, Hold: 200 * time.Millisecond, Links: w.links, Peers: peers,
	})
	w.relay = relay
	server := httptest.NewServer(serve(relay))
	w.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/"
	w.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
}

// serve answers /{session}/{rest…} with the relay.
func serve(relay *proxy.Relay) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		err := relay.Serve(w, r, proxy.Access{SessionID: id, Tunnelled: r.Header.Get("X-Forwarded") != ""}, "/"+rest)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}
}

// v1 starts a container that is launched and registered at r1.
func (w *v1World) v1(id string, change ...func(*v1container.Config)) *v1container.Container {
	w.t.Helper()
	set, erase := w.notes.note(id)
	cfg := v1container.Config{ID: id, Note: set, Erase: erase}
	for _, c := range change {
		c(&cfg)
	}
	c, err := v1container.Start(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Kill)
	w.launch(&container{id: id, port: c.Port()})
	if _, err := w.store.Register(w.t.Context(), state.Registration{
		ID: id, Launch: id, BootID: "boot-" + id, Protocol: 1, MaxSessions: 20,
		Claimed: state.Claim{IP: "localhost", Port: c.Port(), TaskARN: "local"}, Owner: "r1",
	}); err != nil {
		w.t.Fatal(err)
	}
	w.await("container "+id, func() bool {
		m, ok := w.mirror.Container(id)
		return ok && m.Phase == state.ContainerReady
	})
	return c
}

// wish makes a pending session.
func (w *v1World) wish(id string, change ...func(*state.Admission)) {
	w.t.Helper()
	a := state.Admission{
		ID: id, UserID: "u", Origin: state.OriginForeign, Remaining: time.Hour,
		Spec: json.RawMessage(`{"sessionId":"` + id + `","browserSettings":{"viewport":{"width":7},"big":9007199254740993}}`),
	}
	for _, c := range change {
		c(&a)
	}
	if _, err := w.store.Admit(w.t.Context(), w.leader, a); err != nil {
		w.t.Fatal(err)
	}
}

// started gives a session that has a browser in the container.
func (w *v1World) started(id, in string, change ...func(*state.Admission)) *state.Session {
	w.t.Helper()
	w.wish(id, change...)
	w.bind(id, &container{id: in, bootID: "boot-" + in})
	w.awaitPhase(id, state.Ready)
	w.await("the mirror", func() bool { m, ok := w.mirror.Session(id); return ok && m.Phase == state.Ready })
	return w.session(id)
}

// client is a v1 client's socket.
type client struct {
	t *testing.T
	*websocket.Conn
}

// connect opens a client's socket, which is answered at once.
func (w *v1World) connect(id string) *client {
	w.t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(w.t.Context(), w.url+id+"/ws", nil)
	if err != nil {
		w.t.Fatalf("connecting: %v %+v", err, resp)
	}
	_ = resp.Body.Close()
	w.t.Cleanup(func() { _ = conn.Close() })
	return &client{t: w.t, Conn: conn}
}

// greeted opens a client's socket and takes its session_ready.
func (w *v1World) greeted(id string) *client {
	w.t.Helper()
	c := w.connect(id)
	c.wants(`{"type":"session_ready","sessionId":"` + id + `"}`)
	return c
}

func (c *client) says(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// hears gives the next message.
func (c *client) hears() string {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	kind, text, err := c.ReadMessage()
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	if kind != websocket.TextMessage {
		c.t.Fatalf("got a message of kind %d", kind)
	}
	return string(text)
}

func (c *client) wants(text string) {
	c.t.Helper()
	if got := c.hears(); got != text {
		c.t.Fatalf("got %.300s\nwant %.300s", got, text)
	}
}

// closes checks that the next thing is that close frame.
func (c *client) closes(code int, reason string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, text, err := c.ReadMessage()
	var closed *websocket.CloseError
	if !asClose(err, &closed) || closed.Code != code || closed.Text != reason {
		c.t.Fatalf("got %.200s and %v, want %d %s", text, err, code, reason)
	}
}

func asClose(err error, into **websocket.CloseError) bool {
	closed, ok := err.(*websocket.CloseError) //nolint:errorlint // gorilla gives it bare
	*into = closed
	return ok
}
