package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/e2e/v1container"
	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/state"
)

// newV1Town is a town for v1 containers: of its replicas any serves any session.
func newV1Town(t *testing.T) (*town, *v1Notes) {
	t.Helper()
	n, notes := newTown(t), &v1Notes{held: map[string]map[string]string{}}
	n.tune = func(c *proxy.LinksConfig) {
		c.V1 = proxy.V1Config{
			Slots: notes, Ping: 50 * time.Millisecond, Silence: time.Second,
			Probe: 200 * time.Millisecond, ProbeWait: 500 * time.Millisecond, Settle: 100 * time.Millisecond,
		}
	}
	return n, notes
}

// open lets clients in at a replica, and those that others pass on.
func (r *resident) open() {
	tunnels := proxy.NewTunnels(proxy.TunnelsConfig{
		Addr: r.owners.Locate,
		Ticket: func(replica string, a proxy.Access) (string, error) {
			return replica + "/" + a.SessionID, nil
		},
	})
	relay := proxy.NewRelay(proxy.RelayConfig{
		Mirror: r.mirror, Store: r.store, Secret: secretOf, Hold: 200 * time.Millisecond, Links: r.links, Peers: tunnels,
	})
	r.answer(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == proxy.PeerPath+r.id {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		access := proxy.Access{}
		rest, passed := strings.CutPrefix(req.URL.Path, proxy.PeerSessionsPath)
		if passed {
			access.Tunnelled = true
		}
		access.SessionID, _, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		if passed && req.Header.Get("Authorization") != "Bearer "+r.id+"/"+access.SessionID {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if err := relay.Serve(w, req, access, "/ws"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}

// admitted opens a client's socket at a replica, trying again as clients do.
func (r *resident) admitted(session string) *client {
	r.town.t.Helper()
	var conn *websocket.Conn
	r.town.await("replica "+r.id+" to let a client in", func() bool {
		var err error
		var resp *http.Response
		conn, resp, err = websocket.DefaultDialer.DialContext(r.town.t.Context(), "ws://"+r.server.Listener.Addr().String()+"/"+session+"/ws", nil)
		if resp != nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})
	r.town.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: r.town.t, Conn: conn}
	c.wants(`{"type":"session_ready","sessionId":"` + session + `"}`)
	return c
}

// v1In starts a v1 container whose link is r1's, with a session.
func (n *town) v1In(notes *v1Notes, id, session string) *v1container.Container {
	n.t.Helper()
	set, erase := notes.note(id)
	c, err := v1container.Start(v1container.Config{ID: id, Note: set, Erase: erase})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Kill)
	n.launch(&container{id: id, port: c.Port()})
	if _, err := n.store.Register(n.t.Context(), state.Registration{
		ID: id, Launch: id, BootID: "boot-" + id, Protocol: 1, MaxSessions: 20,
		Claimed: state.Claim{IP: "localhost", Port: c.Port(), TaskARN: "local"}, Owner: "r1",
	}); err != nil {
		n.t.Fatal(err)
	}
	n.await("container "+id, func() bool { return n.container(id).Phase == state.ContainerReady })
	n.admit(session)
	n.bind(session, &container{id: id, bootID: "boot-" + id})
	n.awaitPhase(session, state.Ready)
	return c
}

func says(c *client) {
	c.t.Helper()
	c.says(`{"id":9007199254740993,"method":"A"}`)
	c.wants(`{"id":9007199254740993,"result":{"echo":{"id":9007199254740993,"method":"A"}}}`)
}

func TestV1ClientsAreServedAtEveryReplicaAndComeBackAfterItsDeath(t *testing.T) {
	for name, end := range map[string]func(*town, *resident){
		"killed": func(n *town, r *resident) {
			r.die()
			n.later(leaseOver)
		},
		"stopped": func(_ *town, r *resident) { r.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			n, notes := newV1Town(t)
			r1, r2, r3 := n.resident("r1"), n.resident("r2"), n.resident("r3")
			for _, r := range []*resident{r1, r2, r3} {
				r.open()
			}
			c := n.v1In(notes, "cnt_1", "ses_1")
			for _, r := range []*resident{r1, r2, r3} {
				says(r.admitted("ses_1"))
			}
			bound := n.session("ses_1").BindRev
			end(n, r1)
			n.ownedBy("cnt_1", r2, r3)
			for _, r := range []*resident{r2, r3} {
				says(r.admitted("ses_1"))
			}
			if ever, atOnce := c.Opened(); atOnce != 1 || ever != 2 {
				t.Errorf("%d links, %d at once", ever, atOnce)
			}
			if created := c.Seen("CREATE_SESSION"); len(created) != 1 {
				t.Errorf("CREATE_SESSION was sent %d times", len(created))
			}
			if got := n.session("ses_1"); got.Phase != state.Ready || got.BindRev != bound {
				t.Errorf("its session is %+v", got)
			}
		})
	}
}

func TestV1WhatAMuteContainerWasAskedIsForgotten(t *testing.T) {
	w := newV1World(t)
	c := w.v1("cnt_1")
	w.started("ses_1", "cnt_1")
	const command = `{"id":1,"method":"A"}`
	gone := w.greeted("ses_1")
	c.Silence()
	gone.says(command)
	w.await("the command", func() bool { return len(c.Seen("CLIENT_MESSAGE")) > 0 })
	_ = gone.Close()
	w.await("the second link", func() bool { ever, _ := c.Opened(); return ever == 2 })
	next := w.greeted("ses_1")
	next.says(command)
	next.wants(`{"id":1,"result":{"echo":` + command + `}}`)
}

func TestAReplicaThatHasOnlyJustStartedIsLookedForInTheStore(t *testing.T) {
	n, _ := newV1Town(t)
	r1 := n.resident("r1")
	if _, known := r1.owners.Addr("r9"); known {
		t.Fatal("a replica is known that was never announced")
	}
	if err := n.store.Announce(t.Context(), state.Replica{ID: "r9", Addr: "127.0.0.1:9"}); err != nil {
		t.Fatal(err)
	}
	if addr, known := r1.owners.Locate(t.Context(), "r9"); !known || addr != "127.0.0.1:9" {
		t.Errorf("it is known: %v, at %q", known, addr)
	}
}
