package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// stage is a projector in a bubble, with one container that holds the ready session s1.
type stage struct {
	t     *testing.T
	store *state.Memory
	reg   *prometheus.Registry
	p     *proxy.Projector

	session   *state.Session
	container *state.Container
}

// stage is its own mirror: one that is never behind.
func (s *stage) Session(id string) (*state.Session, bool) {
	return s.session, id == s.session.ID
}

func (s *stage) Container(id string) (*state.Container, bool) {
	return s.container, id == s.container.ID
}

func (s *stage) Now() time.Time { return time.Now() }

const plainDocument = `{"sessionId":"s1","userId":"ann","status":"ready","list":[],"big":9007199254740993}`

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{
		t: t, store: state.NewMemory(nil), reg: prometheus.NewRegistry(),
		session: &state.Session{ID: "s1", Phase: state.Ready, Container: "c1", BootID: "boot", BindRev: 7},
		container: &state.Container{ID: "c1", BootID: "boot", Phase: state.ContainerReady, MaxSessions: 20, Protocol: 1,
			RegisteredAt: time.Now().Add(-time.Minute)},
	}
	s.store.SetDocument("s1", plainDocument, time.Hour)
	s.p = proxy.NewProjector(proxy.ProjectorConfig{Store: s.store, Mirror: s, Registerer: s.reg})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.p.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// report is what the container says of s1 now.
func (s *stage) report(attached int, idle time.Duration) {
	s.t.Helper()
	s.p.Project(proxy.Projection{Container: "c1", At: time.Now(), Health: state.Health{CPU: 0.5, Memory: 0.25},
		Sessions: []wire.SessionReport{{SessionID: "s1", BindRev: 7, Phase: wire.Serving, Attached: attached, Idle: idle.Milliseconds(), GraceLeft: -1}}})
	synctest.Wait()
}

// reports has the container report every 5 s for so long, and counts how often the document
// changed.
func (s *stage) reports(d time.Duration, attached int, idle func(time.Duration) time.Duration) (changes int) {
	s.t.Helper()
	last := s.text()
	for passed := time.Duration(0); passed < d; passed += 5 * time.Second {
		s.report(attached, idle(passed))
		if now := s.text(); now != last {
			last, changes = now, changes+1
		}
		wait(5 * time.Second)
	}
	return changes
}

func wait(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

func (s *stage) text() string {
	s.t.Helper()
	d, err := s.store.Document(s.t.Context(), "s1")
	if err != nil {
		s.t.Fatal(err)
	}
	return string(d.Text)
}

// age is how old the document's lastActivity is.
func (s *stage) age() time.Duration {
	s.t.Helper()
	text := state.StringField([]byte(s.text()), "lastActivity")
	at, err := time.Parse("2006-01-02T15:04:05.000Z", text)
	if err != nil {
		s.t.Fatalf("lastActivity is %q", text)
	}
	return time.Since(at)
}

func still(d time.Duration) func(time.Duration) time.Duration {
	return func(passed time.Duration) time.Duration { return d + passed }
}

func TestLastActivityStaysFreshWhileAClientIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		changes := s.reports(10*time.Minute, 1, still(0)) // connected, and silent
		if changes < 35 || changes > 41 {
			t.Errorf("the document changed %d times in ten minutes, want one each 15 s", changes)
		}
		if age := s.age(); age > 21*time.Second {
			t.Errorf("lastActivity is %v old while a client is connected", age)
		}
		want := `{"sessionId":"s1","userId":"ann","status":"ready","list":[],"big":9007199254740993,"lastActivity":"`
		if got := s.text(); len(got) != len(want)+len(`2026-03-01T12:00:00.000Z"}`) || got[:len(want)] != want {
			t.Errorf("got %s", got)
		}
		if d, _ := s.store.Document(t.Context(), "s1"); d.TTL > 50*time.Minute {
			t.Errorf("the time to live was changed to %v", d.TTL)
		}
	})
}

func TestLastActivityFollowsWhatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.report(0, 90*time.Second)
		if age := s.age(); age < 89*time.Second || age > 91*time.Second {
			t.Fatalf("lastActivity is %v old, want what was reported", age)
		}
		if n := s.reports(5*time.Minute, 0, still(90*time.Second)); n != 0 {
			t.Errorf("the document changed %d times although nothing moved", n)
		}
		if n := s.reports(time.Minute, 0, func(time.Duration) time.Duration { return time.Second }); n != 4 {
			t.Errorf("the document changed %d times in a minute of movement, want 4", n)
		}
		s.reports(30*time.Second, 0, still(2*time.Second))
		if age := s.age(); age > 40*time.Second {
			t.Errorf("the last movement, %v ago by the document, was never shown", age)
		}
	})
}

func TestWhatARequesterUndidIsShownAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.report(0, 0)
		s.store.SetDocument("s1", plainDocument, time.Hour) // read before, written back whole
		s.reports(2*time.Minute, 0, still(0))
		if age := s.age(); age > 121*time.Second || age < 119*time.Second {
			t.Errorf("lastActivity is %v old, want the two minutes that nothing has moved for", age)
		}
	})
}

func TestLastActivityIsNeverWrittenWhereItDoesNotBelong(t *testing.T) {
	for name, text := range map[string]string{
		"terminated":      `{"sessionId":"s1","status":"terminated"}`,
		"cleaned":         `{"sessionId":"s1","status":"cleaned"}`,
		"ended":           `{"sessionId":"s1","status":"ended"}`,
		"another's":       `{"sessionId":"s2","status":"ready"}`,
		"no JSON":         `{"sessionId":`,
		"written already": `{"sessionId":"s1","status":"ready","lastActivity":"2999-01-01T00:00:00.000Z"}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				s.store.SetDocument("s1", text, time.Hour)
				s.reports(time.Minute, 1, still(0))
				if got := s.text(); got != text {
					t.Errorf("got %s", got)
				}
			})
		})
	}
	for name, change := range map[string]func(*state.Session){
		"it is bound elsewhere":        func(s *state.Session) { s.Container = "c2" },
		"it is under another binding":  func(s *state.Session) { s.BindRev = 8 },
		"it ends":                      func(s *state.Session) { s.Phase = state.Ending },
		"nobody knows of it":           func(s *state.Session) { s.ID = "other" },
		"it has never been made ready": func(s *state.Session) { s.Phase = state.Bound },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				change(s.session)
				s.reports(time.Minute, 1, still(0))
				if got := s.text(); got != plainDocument {
					t.Errorf("got %s", got)
				}
			})
		})
	}
}

func TestAMissingDocumentIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.store.DeleteDocument("s1")
		s.reports(time.Minute, 1, still(0))
		if d, _ := s.store.Document(t.Context(), "s1"); !d.Missing {
			t.Errorf("a document that somebody removed is back: %s", d.Text)
		}
		if n := s.count("activity", "failed"); n != 0 {
			t.Errorf("%v failures", n)
		}
	})
}

func (s *stage) count(of, result string) float64 {
	s.t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "wallcrawler_projections_total" && labels["of"] == of && labels["result"] == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	s.t.Fatalf("nothing counts %s %s", of, result)
	return 0
}

func TestHealthIsShownAndDoesNotRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		health := func() (h state.ContainerHealth) {
			t.Helper()
			text, ttl := s.store.ShownHealth("c1")
			if ttl < 35*time.Second {
				t.Fatalf("%q for %v", text, ttl)
			}
			if err := json.Unmarshal([]byte(text), &h); err != nil {
				t.Fatal(err)
			}
			return h
		}
		s.report(1, 0)
		want := state.ContainerHealth{Status: "healthy", ContainerID: "c1", Sessions: 1, MaxSessions: 20, CPU: 0.5, Memory: 0.25, Uptime: 60}
		if got := health(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for range 60 {
			s.report(1, 0)
			wait(5 * time.Second)
			health()
		}
		if n := s.count("health", "done"); n > 22 {
			t.Errorf("written %v times in five minutes without news", n)
		}
		c := *s.container
		c.Phase = state.Draining
		s.container = &c
		s.report(1, 0)
		if got := health(); got.Status != "draining" || got.Uptime != 360 {
			t.Errorf("got %+v", got)
		}
		c.Phase = state.Gone
		wait(2 * time.Minute)
		s.report(0, 0)
		if text, _ := s.store.ShownHealth("c1"); text != "" {
			t.Errorf("a container that is gone shows %s", text)
		}
	})
}

func TestASilentStoreIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.store.FailWith(errors.New("connection refused"))
		for range 6 {
			s.report(1, 0)
			wait(5 * time.Second)
		}
		s.store.FailWith(nil)
		s.report(1, 0)
		if age := s.age(); age > time.Second {
			t.Errorf("lastActivity is %v old with the store back", age)
		}
		if s.count("activity", "failed") == 0 || testutil.CollectAndCount(s.reg, "wallcrawler_projections_total") != 4 {
			t.Error("the failures were not counted")
		}
	})
}

func TestLinksHandReportsToTheProjector(t *testing.T) {
	w := newWorld(t)
	projections := make(chan proxy.Projection, 100)
	w.links("r1", func(c *proxy.LinksConfig) {
		c.Project = func(p proxy.Projection) {
			select {
			case projections <- p:
			default:
			}
		}
	})
	c := w.ready("c1")
	w.serving("s1", c)
	c.report()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case p := <-projections:
			if p.Container == "c1" && len(p.Sessions) == 1 && p.Sessions[0].SessionID == "s1" && !p.At.IsZero() {
				return
			}
		case <-timeout.C:
			t.Fatal("no report of s1 was handed on")
		}
	}
}
