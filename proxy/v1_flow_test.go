package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// commands counts what the container got of a session.
func commands(c *v1container.Container, session string) int {
	n := 0
	for _, m := range c.Seen("CLIENT_MESSAGE") {
		if m.SessionID == session && !strings.Contains(string(m.Data), "keepalive") {
			n++
		}
	}
	return n
}

func TestV1AClientIsNotReadWithManyCommandsUnanswered(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1", func(c *v1container.Config) {
		c.Answer = func(session string, _ json.RawMessage) json.RawMessage {
			if session == "ses_1" {
				return nil // answered by hand, below
			}
			return json.RawMessage(`{}`)
		}
	})
	w.started("ses_1", "cnt_1")
	w.started("ses_2", "cnt_1")
	client, other := w.greeted("ses_1"), w.greeted("ses_2")
	for i := range 50 {
		client.says(fmt.Sprintf(`{"id":%d,"method":"A"}`, i))
	}
	w.await("32 commands", func() bool { return commands(c, "ses_1") == 32 })
	// Others are served meanwhile, and what was to come after the 32 still does not.
	for i := range 20 {
		other.says(fmt.Sprintf(`{"id":%d,"method":"A"}`, i))
		other.wants(fmt.Sprintf(`{"id":%d,"result":{}}`, i))
	}
	if n := commands(c, "ses_1"); n != 32 {
		t.Errorf("the container got %d commands", n)
	}
	answer := func(i int) {
		c.Say(fmt.Appendf(nil, `{"type":"CDP_RESPONSE","sessionId":"ses_1","data":{"id":%d,"result":{}}}`, i))
	}
	for i := range 32 {
		answer(i)
	}
	w.await("the other commands", func() bool { return commands(c, "ses_1") == 50 })
	for i := 32; i < 50; i++ {
		answer(i)
	}
	for i := range 50 {
		client.wants(fmt.Sprintf(`{"id":%d,"result":{}}`, i))
	}
}

func TestV1AClientThatReadsNothingIsClosedAndOthersAreServed(t *testing.T) {
	w := newV1World(t, func(c *proxy.LinksConfig) { c.V1.Silence, c.V1.ProbeWait = 20*time.Second, 20*time.Second })
	c := w.v1("cnt_1", func(c *v1container.Config) {
		c.Answer = func(string, json.RawMessage) json.RawMessage { return nil }
	})
	w.started("ses_1", "cnt_1")
	w.started("ses_2", "cnt_1")
	lazy, other := w.greeted("ses_1"), w.greeted("ses_2")
	const n = 24 // of 4 MiB: more than the limit and what sockets hold
	for i := range n {
		lazy.says(fmt.Sprintf(`{"id":%d,"method":"A"}`, i))
	}
	w.await("the commands", func() bool { return commands(c, "ses_1") == n })
	big := strings.Repeat("A", 4<<20)
	for i := range n {
		c.Say(fmt.Appendf(nil, `{"type":"CDP_RESPONSE","sessionId":"ses_1","data":{"id":%d,"result":%q}}`, i, big))
	}
	c.Frame("ses_2", 1, "AAAA")
	other.hears()
	w.await("the lazy client to be let go", func() bool { return w.session("ses_1").Attached == 0 })
	var err error
	for err == nil {
		_ = lazy.SetReadDeadline(time.Now().Add(patience))
		_, _, err = lazy.ReadMessage()
	}
	if closed, ok := err.(*websocket.CloseError); ok && closed.Code != 1013 && closed.Code != 1006 { //nolint:errorlint // bare
		t.Errorf("closed with %v", err)
	}
}

func TestV1OfFramesOnlyTheNewestIsKept(t *testing.T) {
	w := newV1World(t, func(c *proxy.LinksConfig) { c.V1.Silence, c.V1.ProbeWait = 20*time.Second, 20*time.Second })
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	big := strings.Repeat("A", 1<<20)
	const n = 120 // MiB: twice what would close the client
	for i := range n {
		c.Frame("ses_1", i, big)
	}
	c.Say([]byte(`{"type":"SCREENCAST_STOPPED","sessionId":"ses_1"}`))
	got, last := 0, ""
	for text := client.hears(); !strings.Contains(text, "STOPPED"); text = client.hears() {
		got++
		last = text[len(text)-20:]
	}
	if !strings.Contains(last, fmt.Sprintf(`"frameId":%d}`, n-1)) {
		t.Errorf("the last frame ends with %s", last)
	}
	if got >= n {
		t.Errorf("got all %d frames", got)
	}
}

// hand lets clients through to a replica in this process.
type hand struct {
	serve http.HandlerFunc
	owner string
	calls atomic.Int32
}

func (h *hand) Tunnel(w http.ResponseWriter, r *http.Request, owner string, _ proxy.Access) error {
	h.calls.Add(1)
	if owner != h.owner {
		return state.ErrUnavailable
	}
	r.Header.Set("X-Forwarded", "yes")
	h.serve(w, r)
	return nil
}

func TestV1ClientsAreLetThroughToTheOwner(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	owner := &hand{serve: serve(w.relay), owner: "r1"}
	w.replica("r2", owner)
	client := w.greeted("ses_1")
	client.says(`{"id":1,"method":"A"}`)
	client.wants(`{"id":1,"result":{"echo":{"id":1,"method":"A"}}}`)
	if n := owner.calls.Load(); n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

func TestV1AClientThatCameEarlyIsHandedToTheOwner(t *testing.T) {
	t.Run("in this process", func(t *testing.T) {
		w := newV1World(t)
		handOver(t, w, &hand{serve: serve(w.relay), owner: "r1"})
	})
	t.Run("through a tunnel", func(t *testing.T) {
		w := newV1World(t)
		first := w.relay
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, proxy.PeerSessionsPath), "/ws")
			if err := first.Serve(w, r, proxy.Access{SessionID: id, Tunnelled: true}, "/ws"); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}))
		t.Cleanup(func() {
			server.CloseClientConnections()
			server.Close()
		})
		handOver(t, w, proxy.NewTunnels(proxy.TunnelsConfig{
			Addr:   func(context.Context, string) (string, bool) { return server.Listener.Addr().String(), true },
			Ticket: func(string, proxy.Access) (string, error) { return "ticket", nil },
		}))
	})
}

// handOver has a client come early to r2, whose session gets a container of r1's.
func handOver(t *testing.T, w *v1World, owner proxy.Peers) {
	t.Helper()
	w.v1("cnt_1")
	w.wish("ses_1")
	w.replica("r2", owner)
	client := w.connect("ses_1") // has its 101, and no container
	long := strings.Repeat("x", 70<<10)
	messages := []string{`{"id":1,"method":"A"}`, `{"id":2,"text":"` + long + `"}`, `{"id":3,"text":"` + long[:300] + `"}`}
	for _, text := range messages {
		client.says(text)
	}
	w.bind("ses_1", &container{id: "cnt_1", bootID: "boot-cnt_1"})
	client.wants(`{"type":"session_ready","sessionId":"ses_1"}`)
	for i, text := range messages {
		client.wants(fmt.Sprintf(`{"id":%d,"result":{"echo":%s}}`, i+1, text))
	}
	ponged := make(chan string, 1)
	client.SetPongHandler(func(data string) error { ponged <- data; return nil })
	if err := client.WriteControl(websocket.PingMessage, []byte("p"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	client.says(`{"id":4,"method":"A"}`)
	client.wants(`{"id":4,"result":{"echo":{"id":4,"method":"A"}}}`)
	if got := <-ponged; got != "p" {
		t.Errorf("pong %q", got)
	}
	_ = client.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye"), time.Now().Add(time.Second))
	client.closes(1000, "")
	w.await("the client to be gone", func() bool {
		s := w.session("ses_1")
		return s.Attached == 0 && !s.GraceUntil.IsZero() && time.Until(s.GraceUntil) < 30*time.Second
	})
}

func TestV1AClientOfAnotherReplicaIsAskedToTryAgain(t *testing.T) {
	w := newV1World(t)
	w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	w.replica("r2", nil)
	_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), w.url+"ses_1/ws", nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("got %v", err)
	}
	_ = resp.Body.Close()
}

func TestV1NotesOfAContainerThatIsGoneAreRemoved(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	client := w.greeted("ses_1")
	c.Kill()
	client.closes(1011, "Container disconnected")
	if _, err := w.store.MarkGone(t.Context(), w.leader, "cnt_1", "boot-cnt_1"); err != nil {
		t.Fatal(err)
	}
	w.await("the notes to be gone", func() bool { n, _ := w.notes.V1Count(t.Context(), "cnt_1"); return n == 0 })
}
