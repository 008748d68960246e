package proxy_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/proxy"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
	"github.com/wallcrawler/wallcrawler/state"
)

// starts is how many starts of sessions were observed, by the source of their browsers, and how
// many seconds they have taken together.
func starts(t *testing.T, reg *prometheus.Registry) (counts map[string]uint64, took float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts = map[string]uint64{}
	for _, f := range families {
		if f.GetName() != "wallcrawler_session_ready_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
			took += m.GetHistogram().GetSampleSum()
		}
	}
	return counts, took
}

// deafStore carries writes of ready sessions out and loses so many of the answers.
type deafStore struct {
	*state.Memory
	lose  atomic.Int64
	calls atomic.Int64
}

func (d *deafStore) Ready(ctx context.Context, by state.Authority, id string, bindRev int64, cold bool) (*state.Session, bool, error) {
	d.calls.Add(1)
	s, first, err := d.Memory.Ready(ctx, by, id, bindRev, cold)
	if err == nil && d.lose.Add(-1) >= 0 {
		return nil, false, fmt.Errorf("%w: the answer is lost", state.ErrUnavailable)
	}
	return s, first, err
}

func TestAStartIsObservedOnce(t *testing.T) {
	for name, lose := range map[string]int64{"answered": 0, "though the answer is lost": 1, "though two answers are lost": 2} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			store := &deafStore{Memory: w.store}
			store.lose.Store(lose)
			stop := w.links("r1", func(c *proxy.LinksConfig) { c.Store = store })
			c := w.ready("cnt_1")
			s := w.serving("ses_1", c)
			w.await("the write to be answered", func() bool { return store.calls.Load() == lose+1 })
			// The container says it again, as it may: nothing has started twice.
			c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: s.BindRev})
			w.serving("ses_2", c)
			stop() // everything that was learnt is written
			if got := store.calls.Load(); got != lose+3 {
				t.Errorf("the store was told %d times", got)
			}
			if got, took := starts(t, w.reg); got["warm"] != 2 || got["cold"] != 0 || took < 0 || took > 2*patience.Seconds() {
				t.Errorf("of two sessions, these starts were observed: %v", got)
			}
		})
	}
}

func TestATakeoverObservesNoStartTwiceAndMissesNone(t *testing.T) {
	n := newTown(t)
	regs := map[string]*prometheus.Registry{}
	n.tune = func(c *proxy.LinksConfig) {
		regs[c.Replica] = prometheus.NewRegistry()
		c.Registerer = regs[c.Replica]
	}
	r1, r2 := n.resident("r1"), n.resident("r2")
	c := n.ready("cnt_1")
	s := n.serving("ses_1", c)
	n.admit("ses_2")
	n.bind("ses_2", c)
	o := c.expect(wire.CreateSession)
	r1.die()
	c.hold("ses_2", o.BindRev) // it becomes ready while nobody listens
	n.later(leaseOver)
	n.ownedBy("cnt_1", r2)
	n.await("the second link", func() bool { return c.dialled() == 2 })
	c.report()
	n.awaitPhase("ses_2", state.Ready)
	c.expect(wire.UpdateSession)
	c.expect(wire.UpdateSession)
	c.notify(wire.Notice{Type: wire.SessionReady, SessionID: "ses_1", BindRev: s.BindRev})
	n.serving("ses_3", c)
	r2.stop()
	if got, _ := starts(t, regs["r1"]); got["warm"] != 1 {
		t.Errorf("the first owner has observed %v", got)
	}
	if got, took := starts(t, regs["r2"]); got["warm"] != 2 || took < leaseOver.Seconds() {
		t.Errorf("the second owner has observed %v, of %v s", got, took)
	}
}
