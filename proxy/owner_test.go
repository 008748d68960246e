package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// town is a world with several replicas, and a clock of the store that can be moved.
type town struct {
	*world
	ahead atomic.Int64 // of the store's clock
	tune  func(*proxy.LinksConfig)
}

func newTown(t *testing.T) *town {
	t.Helper()
	n := &town{}
	clock := func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) }
	w := &world{t: t, store: state.NewMemory(clock), fleet: &fakeFleet{tasks: map[string]state.Task{}}, reg: prometheus.NewRegistry()}
	n.world = w
	w.mirror = n.mirrorOf(w.store)
	epoch, _, err := w.store.AcquireLease(t.Context(), "leader", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.leader = state.Authority{Epoch: epoch}
	return n
}

func (n *town) mirrorOf(src state.Source) *state.Mirror {
	m := state.NewMirror(src, state.MirrorOptions{Relist: 20 * time.Millisecond})
	n.background(m.Run)
	n.await("the mirror", func() bool { return m.Age() < time.Hour })
	return m
}

// later moves the store's clock, so that leases run out.
func (n *town) later(d time.Duration) { n.ahead.Add(int64(d)) }

// sockets is a listener whose connections can be cut, those that were taken over included.
type sockets struct {
	net.Listener
	mu   sync.Mutex // guards open
	open []net.Conn
}

func (s *sockets) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err == nil {
		s.mu.Lock()
		s.open = append(s.open, conn)
		s.mu.Unlock()
	}
	return conn, err
}

func (s *sockets) cut() {
	_ = s.Listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.open {
		_ = conn.Close()
	}
}

// resident is a replica.
type resident struct {
	id      string
	town    *town
	mirror  *state.Mirror
	owners  *proxy.Owners
	reg     *prometheus.Registry
	store   *mortalStore
	server  *httptest.Server
	answers atomic.Value // func(http.ResponseWriter, *http.Request): of the server
	asked   atomic.Int64
	links   *proxy.Links
	socks   *sockets
	stop    func() // lets go of everything, as on SIGTERM
}

// mortalStore is a store that a replica loses when it dies.
type mortalStore struct {
	state.Store
	cut atomic.Bool
}

var errCut = fmt.Errorf("%w: the process is dead", state.ErrUnavailable)

func (m *mortalStore) Report(ctx context.Context, by state.Authority, r state.Report) (*state.Container, error) {
	if m.cut.Load() {
		return nil, errCut
	}
	return m.Store.Report(ctx, by, r)
}

func (m *mortalStore) Disown(ctx context.Context, by state.Authority) error {
	if m.cut.Load() {
		return errCut
	}
	return m.Store.Disown(ctx, by)
}

func (m *mortalStore) Withdraw(ctx context.Context, id string) error {
	if m.cut.Load() {
		return errCut
	}
	return m.Store.Withdraw(ctx, id)
}

func (m *mortalStore) Announce(ctx context.Context, r state.Replica) error {
	if m.cut.Load() {
		return errCut
	}
	return m.Store.Announce(ctx, r)
}

func (n *town) resident(id string, change ...func(*proxy.OwnersConfig)) *resident {
	n.t.Helper()
	r := &resident{id: id, town: n, reg: prometheus.NewRegistry(), store: &mortalStore{Store: n.store}}
	r.mirror = n.mirrorOf(n.store)
	r.answer(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != proxy.PeerPath+id {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		r.answers.Load().(func(http.ResponseWriter, *http.Request))(w, req)
	}))
	r.socks = &sockets{Listener: r.server.Listener}
	r.server.Listener = r.socks
	r.server.Start()
	n.t.Cleanup(func() { r.socks.cut(); r.server.Close() })
	cfg := proxy.OwnersConfig{
		Replica: id, Addr: r.server.Listener.Addr().String(), Version: "test", Store: r.store, Mirror: r.mirror,
		Announce: 20 * time.Millisecond, Settle: 10 * time.Millisecond, AgentPatience: time.Nanosecond,
		ProbeTimeout: 200 * time.Millisecond, Registerer: r.reg,
	}
	for _, c := range change {
		c(&cfg)
	}
	r.owners = proxy.NewOwners(cfg)
	stopOwners := n.background(r.owners.Run)
	links := proxy.LinksConfig{
		Replica: id, Store: r.store, Mirror: r.mirror, Fleet: n.fleet, Secret: secretOf, Redial: time.Hour,
	}
	if n.tune != nil {
		n.tune(&links)
	}
	r.links = proxy.NewLinks(links)
	stopLinks := n.background(r.links.Run)
	r.stop = func() {
		r.owners.Retire()
		stopLinks()
		stopOwners()
	}
	n.await("replica "+id+" to be known", func() bool { _, known := r.owners.Addr(id); return known })
	return r
}

func (r *resident) answer(how func(http.ResponseWriter, *http.Request)) { r.answers.Store(how) }

// die ends the replica as kill -9 does: its sockets are closed, and it says nothing more.
func (r *resident) die() {
	r.store.cut.Store(true)
	r.socks.cut()
	r.server.Close()
	r.stop()
}

func (r *resident) claims(result string) float64 {
	families, err := r.reg.Gather()
	if err != nil {
		r.town.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "wallcrawler_link_claims_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func (n *town) ownedBy(id string, replicas ...*resident) *resident {
	n.t.Helper()
	var owner *resident
	n.await("a new owner of "+id, func() bool {
		c := n.container(id)
		for _, r := range replicas {
			if c.Owner == r.id {
				owner = r
			}
		}
		return owner != nil
	})
	return owner
}

// calm checks that the container has got no order up to now: reports sent and recorded prove it.
func (n *town) calm(c *container) {
	n.t.Helper()
	seen, more := n.container(c.id).SeenAt, 0
	n.await("a report to be recorded", func() bool {
		more++
		c.report(func(r *wire.Report) {
			for i := range more % 2 {
				r.Sessions = append(r.Sessions, wire.SessionReport{SessionID: fmt.Sprint("probe-", i), BindRev: 1, Phase: wire.Starting})
			}
		})
		return n.container(c.id).SeenAt.After(seen)
	})
	select {
	case o := <-c.orders:
		n.t.Fatalf("got order %+v, want none", o)
	default:
	}
}

const leaseOver = state.OwnerLease + time.Second

func TestADeadReplicasContainersAreTakenOverByOneOther(t *testing.T) {
	n := newTown(t)
	r1, r2, r3 := n.resident("r1"), n.resident("r2"), n.resident("r3")
	c := n.ready("cnt_1")
	s := n.serving("ses_1", c)
	<-c.links
	before := n.container("cnt_1")
	r1.die()
	n.later(leaseOver)
	n.ownedBy("cnt_1", r2, r3)
	head := <-c.links
	if got := head.Get(wire.ReplicaHeader); got == "r1" {
		t.Errorf("the link is %s's", got)
	}
	c.report()
	n.await("a report through the new link", func() bool { return n.container("cnt_1").SeenAt.After(before.SeenAt.Add(leaseOver / 2)) })
	after := n.container("cnt_1")
	if after.OwnerSeq != before.OwnerSeq+1 || after.BootID != before.BootID || after.Phase != state.ContainerReady || after.Used() != 1 {
		t.Errorf("taken over, it is %+v", after)
	}
	if n := c.dialled(); n != 2 {
		t.Errorf("it was dialled %d times", n)
	}
	if won := r2.claims("won") + r3.claims("won"); won != 1 {
		t.Errorf("%v claims have won", won)
	}
	if got := n.session("ses_1"); got.Phase != state.Ready || got.BindRev != s.BindRev {
		t.Errorf("its session is %+v", got)
	}
	if _, err := n.store.Report(t.Context(), state.Authority{Container: "cnt_1", OwnerSeq: before.OwnerSeq}, state.Report{BootID: before.BootID}); !errors.Is(err, state.ErrFenced) {
		t.Errorf("the owner before it may still write: %v", err)
	}
	c.expect(wire.UpdateSession)
	n.calm(c) // nothing is created or destroyed by a takeover
}

func TestAReplicaThatStartsAfterACrashAdoptsWhatRuns(t *testing.T) {
	n := newTown(t)
	r1 := n.resident("r1")
	c := n.ready("cnt_1")
	n.serving("ses_1", c)
	// The next process has the address of the one before.
	r1.die()
	n.later(leaseOver)
	r2 := n.resident("r2")
	n.ownedBy("cnt_1", r2)
	n.await("the second link", func() bool { return c.dialled() == 2 })
	if got := n.session("ses_1"); got.Phase != state.Ready {
		t.Errorf("its session is %s", got.Phase)
	}
	launches, err := n.store.Index(t.Context())
	if err != nil || len(launches.Launches) != 1 {
		t.Errorf("%d launches are known: %v", len(launches.Launches), err)
	}
	c.expect(wire.UpdateSession)
	n.calm(c)
}

func TestWhatIsLetGoIsTakenAtOnceWithoutAskingAnybody(t *testing.T) {
	n := newTown(t)
	r1 := n.resident("r1")
	r2 := n.resident("r2", func(c *proxy.OwnersConfig) { c.Settle = time.Hour })
	c := n.ready("cnt_1")
	n.serving("ses_1", c)
	r1.stop()
	n.ownedBy("cnt_1", r2)
	n.await("the second link", func() bool { return c.dialled() == 2 })
	if asked := r1.asked.Load(); asked != 0 {
		t.Errorf("it was asked %d times", asked)
	}
	n.await("r1 to be forgotten", func() bool { _, known := r2.owners.Addr("r1"); return !known })
	if got := n.session("ses_1"); got.Phase != state.Ready {
		t.Errorf("its session is %s", got.Phase)
	}
}

func TestALeaseThatHasRunOutIsNotEnough(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		dial   func(context.Context, string, string) (net.Conn, error)
		result string
		taken  bool
	}{
		"the owner answers": {result: "alive"},
		"the owner is in trouble, but there": {
			answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
			result: "alive",
		},
		"another process is at the owner's address": {
			answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
			result: "won", taken: true,
		},
		"the owner hangs": {
			answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			result: "won", taken: true,
		},
		"the claimant reaches nobody": {
			answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("no route")
			},
			result: "cut_off",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newTown(t)
			r1 := n.resident("r1")
			r2 := n.resident("r2", func(cfg *proxy.OwnersConfig) { cfg.Dial = c.dial })
			fake := n.ready("cnt_1")
			<-fake.links
			if c.answer != nil {
				r1.answer(c.answer)
			}
			n.later(leaseOver)
			n.await("the attempt", func() bool { return r2.claims(c.result) == 1 })
			want := map[bool]string{false: "r1", true: "r2"}[c.taken]
			if got := n.container("cnt_1").Owner; got != want {
				t.Errorf("the owner is %s, want %s", got, want)
			}
			if !c.taken && fake.dialled() != 1 {
				t.Errorf("it was dialled %d times", fake.dialled())
			}
		})
	}
}

func TestAfterAnOutageOfTheStoreOwnersComeFirst(t *testing.T) {
	n := newTown(t)
	r1, r2 := n.resident("r1"), n.resident("r2", func(c *proxy.OwnersConfig) {
		c.Settle, c.MaxViewAge = 2*time.Second, 100*time.Millisecond
	})
	lives, orphan := n.ready("cnt_lives"), n.ready("cnt_orphan")
	<-lives.links
	<-orphan.links
	// Nobody can tell whether r1 is there: only its report speaks for it.
	r1.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	n.store.FailWith(errors.New("no route"))
	n.await("the outage to be noticed", func() bool { return r2.mirror.Age() > 200*time.Millisecond })
	n.later(leaseOver)
	n.store.FailWith(nil)
	begun := time.Now()
	// Agents report every 5 s, and at once when there is news; the other has lost its voice.
	seen := n.container("cnt_lives").SeenAt
	lives.report(func(r *wire.Report) {
		r.Sessions = append(r.Sessions, wire.SessionReport{SessionID: "ses_x", BindRev: 1, Phase: wire.Starting})
	})
	n.await("the owner to report", func() bool { return n.container("cnt_lives").SeenAt.After(seen) })
	n.ownedBy("cnt_orphan", r2)
	if took := time.Since(begun); took < time.Second {
		t.Errorf("claimed after %v: owners had no time to report", took)
	}
	if got := n.container("cnt_lives"); got.Owner != "r1" {
		t.Errorf("the container whose owner has reported is %s's", got.Owner)
	}
	if lives.dialled() != 1 {
		t.Errorf("it was dialled %d times", lives.dialled())
	}
}

func TestAReplicaThatStopsClaimsNothing(t *testing.T) {
	n := newTown(t)
	r1, r2, r3 := n.resident("r1"), n.resident("r2"), n.resident("r3")
	n.ready("cnt_1")
	r2.owners.Retire()
	r1.die()
	n.later(leaseOver)
	if got := n.ownedBy("cnt_1", r2, r3); got != r3 {
		t.Errorf("%s has claimed it", got.id)
	}
}

func TestContainersThatCanRegisterAgainAreGivenTimeTo(t *testing.T) {
	n := newTown(t)
	r1, r2 := n.resident("r1"), n.resident("r2", func(c *proxy.OwnersConfig) { c.AgentPatience = time.Minute })
	agent := n.ready("cnt_agent")
	old, err := n.store.Register(t.Context(), state.Registration{
		ID: "cnt_v1", BootID: "boot", Protocol: 1, MaxSessions: 1, Owner: "r1",
	})
	if err != nil {
		t.Fatal(err)
	}
	r1.die()
	n.later(leaseOver)
	n.ownedBy(old.ID, r2) // it never registers again
	if got := n.container("cnt_agent").Owner; got != "r1" {
		t.Errorf("the agent's container is %s's already", got)
	}
	registered := n.register(agent, "r2")
	n.await("the agent's second link", func() bool { return agent.dialled() == 2 })
	n.later(leaseOver)
	if got := n.container("cnt_agent"); got.OwnerSeq != registered.OwnerSeq {
		t.Errorf("it was claimed besides: %+v", got)
	}
}

func TestAnOwnerOfWhomNobodyKnowsWhereItWas(t *testing.T) {
	n := newTown(t)
	c, err := n.store.Register(t.Context(), state.Registration{ID: "cnt_1", BootID: "b", Protocol: 1, MaxSessions: 1, Owner: "r0"})
	if err != nil {
		t.Fatal(err)
	}
	r1 := n.resident("r1", func(c *proxy.OwnersConfig) { c.Reclaim = time.Millisecond })
	n.later(leaseOver)
	n.await("the attempt", func() bool { return r1.claims("alive") >= 1 })
	if got := n.container("cnt_1"); got.OwnerSeq != c.OwnerSeq {
		t.Fatalf("after one lease it is %+v", got)
	}
	n.later(leaseOver)
	n.ownedBy("cnt_1", r1)
}

func TestSecretsBeforeARotationAreTriedToo(t *testing.T) {
	w := newWorld(t)
	w.links("r1", func(c *proxy.LinksConfig) {
		c.Secret = func(string, string) string { return "of-today" }
		c.PreviousSecrets = func(container, bootID string) []string {
			return []string{"of-long-ago", secretOf(container, bootID)}
		}
	})
	c := w.ready("cnt_1")
	if n := c.dialled(); n != 3 {
		t.Errorf("it was dialled %d times, want one for each secret", n)
	}
	w.serving("ses_1", c)
	c.client = c.talking
	relay := proxy.NewRelay(proxy.RelayConfig{
		Mirror: w.mirror, Store: w.store, Secret: func(string, string) string { return "of-today" },
		PreviousSecrets: func(container, bootID string) []string { return []string{secretOf(container, bootID)} },
	})
	f := w.frontOf(relay)
	conn, _ := f.connect("/sessions/ses_1/ws")
	if conn == nil {
		t.Fatal("refused")
	}
	talk(t, conn)
}

func TestOnlyAMachinesWordMakesAReplicaDead(t *testing.T) {
	n := newTown(t)
	asker, other := n.resident("r1"), n.resident("r2")
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for name, test := range map[string]struct {
		id, addr string
		gone     bool
	}{
		"it answers":               {"r2", other.server.Listener.Addr().String(), false},
		"another is there":         {"r3", other.server.Listener.Addr().String(), true},
		"nobody is there":          {"r3", refused.Addr().String(), true},
		"it says nothing":          {"r3", mute.Addr().String(), false},
		"nobody knows where it is": {"r3", "", false},
	} {
		if gone := asker.owners.Gone(t.Context(), state.Replica{ID: test.id, Addr: test.addr}); gone != test.gone {
			t.Errorf("%s: gone %v", name, gone)
		}
	}
}
