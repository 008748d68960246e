package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/tunnel"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

const patience = 10 * time.Second

// world is a store, its mirror, a leader's authority and the links of one replica.
type world struct {
	t      *testing.T
	store  *state.Memory
	mirror *state.Mirror
	leader state.Authority
	fleet  *fakeFleet
	reg    *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: state.NewMemory(time.Now), fleet: &fakeFleet{tasks: map[string]state.Task{}}, reg: prometheus.NewRegistry()}
	w.mirror = state.NewMirror(w.store, state.MirrorOptions{Relist: 100 * time.Millisecond})
	w.background(w.mirror.Run)
	epoch, _, err := w.store.AcquireLease(t.Context(), "leader", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.leader = state.Authority{Epoch: epoch}
	w.await("the mirror", func() bool { return w.mirror.Age() < time.Hour })
	return w
}

// background runs something until the test's end, or until the returned stop.
func (w *world) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx)
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// await waits until the condition holds.
func (w *world) await(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func secretOf(container, bootID string) string { return "secret-of-" + container + "-" + bootID }

// links runs the links of a replica.
func (w *world) links(replica string, change ...func(*proxy.LinksConfig)) (stop func()) {
	cfg := proxy.LinksConfig{
		Replica: replica, Store: w.store, Mirror: w.mirror, Fleet: w.fleet, Secret: secretOf,
		Redial: 50 * time.Millisecond, Registerer: w.reg,
	}
	for _, c := range change {
		c(&cfg)
	}
	return w.background(proxy.NewLinks(cfg).Run)
}

// launch records that the leader has started a container as a task, at c's address.
func (w *world) launch(c *container) {
	w.t.Helper()
	if _, err := w.store.CreateLaunch(w.t.Context(), w.leader, state.Launch{ID: c.id, Input: json.RawMessage(`{}`), Port: c.port}); err != nil {
		w.t.Fatal(err)
	}
	arn := "arn:task/" + c.id
	if _, err := w.store.UpdateLaunch(w.t.Context(), w.leader, c.id, state.LaunchUpdate{TaskARN: arn, Outcome: state.Started}); err != nil {
		w.t.Fatal(err)
	}
	w.fleet.set(state.Task{ARN: arn, ContainerID: c.id, LastStatus: "RUNNING", DesiredStatus: "RUNNING", Addr: "127.0.0.1"})
}

// register records a registration at a replica.
func (w *world) register(c *container, replica string) *state.Container {
	w.t.Helper()
	got, err := w.store.Register(w.t.Context(), state.Registration{
		ID: c.id, Launch: c.id, BootID: c.bootID, Protocol: 2, MaxSessions: 4,
		Claimed: state.Claim{IP: "127.0.0.1", Port: c.port, TaskARN: "local"}, Owner: replica,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// admit makes a pending session.
func (w *world) admit(id string) {
	w.t.Helper()
	if _, err := w.store.Admit(w.t.Context(), w.leader, state.Admission{
		ID: id, UserID: "u", Origin: state.OriginAPI, Remaining: time.Hour,
		Spec: json.RawMessage(`{"sessionId":"` + id + `","browserSettings":{"viewport":{"width":7}}}`),
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) bind(id string, c *container) *state.Session {
	w.t.Helper()
	s, err := w.store.Bind(w.t.Context(), w.leader, state.Binding{Session: id, Container: c.id, BootID: c.bootID})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) session(id string) *state.Session {
	w.t.Helper()
	s, err := w.store.Session(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) container(id string) *state.Container {
	w.t.Helper()
	c, err := w.store.Container(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) awaitPhase(id string, phase state.Phase) *state.Session {
	w.t.Helper()
	w.await(fmt.Sprintf("session %s to be %s", id, phase), func() bool { return w.session(id).Phase == phase })
	return w.session(id)
}

// ready gives a container that is linked and ready.
func (w *world) ready(id string) *container {
	w.t.Helper()
	c := newContainer(w.t, id)
	w.launch(c)
	w.register(c, "r1")
	w.await("container "+id, func() bool { return w.container(id).Phase == state.ContainerReady })
	return c
}

// serving gives a ready session in the container.
func (w *world) serving(id string, c *container) *state.Session {
	w.t.Helper()
	w.admit(id)
	s := w.bind(id, c)
	o := c.expect(wire.CreateSession)
	c.hold(id, o.BindRev)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: id, BindRev: o.BindRev})
	w.awaitPhase(id, state.Ready)
	w.await("the mirror", func() bool { m, ok := w.mirror.Session(id); return ok && m.Phase == state.Ready })
	return s
}

// fakeFleet describes tasks.
type fakeFleet struct {
	mu    sync.Mutex
	tasks map[string]state.Task
	calls int
}

func (f *fakeFleet) set(task state.Task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tasks[task.ARN] = task
}

func (f *fakeFleet) Describe(_ context.Context, arns ...string) ([]state.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	var found []state.Task
	for _, arn := range arns {
		if task, ok := f.tasks[arn]; ok {
			found = append(found, task)
		}
	}
	return found, nil
}

func (f *fakeFleet) called() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// container is a fake of the agent: it speaks the link and takes clients, and does nothing
// by itself.
type container struct {
	t      *testing.T
	id     string
	bootID string
	port   int
	orders chan wire.Order
	links  chan http.Header // heads of the links that were opened
	client func(http.ResponseWriter, *http.Request)

	mu       sync.Mutex
	conn     *websocket.Conn
	held     map[string]int64
	ack      uint64
	drainAck int64
	draining bool
	dials    int
}

func newContainer(t *testing.T, id string) *container {
	t.Helper()
	c := &container{
		t: t, id: id, bootID: "boot-" + id, held: map[string]int64{},
		orders: make(chan wire.Order, 100), links: make(chan http.Header, 100),
	}
	mux := http.NewServeMux()
	mux.HandleFunc(wire.LinkPath, c.link)
	mux.HandleFunc(wire.SessionsPath, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secretOf(c.id, c.bootID) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		c.client(w, r)
	})
	server := httptest.NewServer(mux)
	c.port = server.Listener.Addr().(*net.TCPAddr).Port
	t.Cleanup(func() {
		c.drop()
		server.CloseClientConnections()
		server.Close()
	})
	return c
}

func (c *container) link(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.dials++
	c.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+secretOf(c.id, c.bootID) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	up := websocket.Upgrader{}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c.mu.Lock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn, c.ack = conn, 0
	c.mu.Unlock()
	c.report()
	c.links <- r.Header.Clone()
	for {
		var o wire.Order
		if err := conn.ReadJSON(&o); err != nil {
			_ = conn.Close()
			return
		}
		c.mu.Lock()
		c.ack = o.N
		c.mu.Unlock()
		c.orders <- o
	}
}

// drop cuts the link.
func (c *container) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

func (c *container) dialled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}

func (c *container) hold(session string, bindRev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[session] = bindRev
}

func (c *container) release(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, session)
}

// notify sends a notice.
func (c *container) notify(n wire.Notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.WriteJSON(n)
	}
}

// report sends the full state.
func (c *container) report(change ...func(*wire.Report)) {
	c.mu.Lock()
	r := wire.Report{BootID: c.bootID, Ack: c.ack, DrainAck: c.drainAck, Draining: c.draining}
	for id, rev := range c.held {
		r.Sessions = append(r.Sessions, wire.SessionReport{SessionID: id, BindRev: rev, Phase: wire.Serving, GraceLeft: -1})
	}
	c.mu.Unlock()
	for _, f := range change {
		f(&r)
	}
	c.notify(wire.Notice{Type: wire.ReportState, Report: &r})
}

// expect gives the next order, which must be of that type.
func (c *container) expect(kind string) wire.Order {
	c.t.Helper()
	select {
	case o := <-c.orders:
		if o.Type != kind {
			c.t.Fatalf("got order %+v, want %s", o, kind)
		}
		return o
	case <-time.After(patience):
		c.t.Fatalf("waited in vain for %s", kind)
		return wire.Order{}
	}
}

// quiet checks that no order has come up to now: a notice sent and recorded proves it.
func (c *container) quiet(w *world) {
	c.t.Helper()
	seen := w.container(c.id).SeenAt
	// A report that a newer one overtakes is not recorded: it is sent until one is.
	var sent time.Time
	w.await("a report to be recorded", func() bool {
		if time.Since(sent) > time.Second {
			sent = time.Now()
			c.report(func(r *wire.Report) {
				r.DrainAck = 0
				r.Sessions = append(r.Sessions, wire.SessionReport{SessionID: "probe", BindRev: 1, Phase: wire.Starting})
			})
		}
		return w.container(c.id).SeenAt.After(seen)
	})
	select {
	case o := <-c.orders:
		c.t.Fatalf("got order %+v, want none", o)
	default:
	}
	c.report()
}

// talking takes clients and sends their messages back.
func (c *container) talking(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		_ = conn.WriteMessage(kind, text)
	}
}

// echoing takes clients and sends their bytes back, frames or not.
func (c *container) echoing(w http.ResponseWriter, r *http.Request) {
	peer, err := tunnel.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer peer.Conn.Close()
	_, _ = peer.Conn.Write(peer.Early)
	buf := make([]byte, 4096)
	for {
		n, err := peer.Conn.Read(buf)
		if err != nil {
			return
		}
		_, _ = peer.Conn.Write(buf[:n])
	}
}
