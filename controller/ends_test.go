package controller_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/state"
)

// leaseCut is a store in which one replica's lease can be kept from it.
type leaseCut struct {
	controller.Store
	cut *atomic.Bool
}

var errCut = errors.New("connection reset")

func (l leaseCut) AcquireLease(ctx context.Context, replica string, had int64) (int64, time.Duration, error) {
	if l.cut.Load() {
		return 0, 0, errCut
	}
	return l.Store.AcquireLease(ctx, replica, had)
}

// countedEnds sums up the ends of sessions in a replica's metrics.
func countedEnds(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "wallcrawler_session_end_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestAnEndIsCountedOnceHoweverOftenTheLeadChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cuts [2]atomic.Bool
		var counts [2]*prometheus.Registry
		pool := state.Pool{Min: 2, Max: 2, MaxSessions: 2}
		configure := func(i int) func(cfg *controller.Config) {
			counts[i] = prometheus.NewRegistry()
			return func(cfg *controller.Config) {
				cfg.Store, cfg.Registerer = leaseCut{cfg.Store, &cuts[i]}, counts[i]
			}
		}
		r := newRig(t, pool, func(r *rig) { r.config = configure(0) })
		r.until(5*time.Second, "r1 leads", r.c.Leading)
		next := startRig(t, r.store, pool, "r2", func(next *rig) {
			next.fleet, next.boots, next.seqs, next.config = r.fleet, r.boots, r.seqs, configure(1)
		})
		for _, id := range []string{"s1", "s2", "s3", "s4"} {
			r.store.SetDocument(id, pending(id), time.Hour)
		}
		r.until(10*time.Second, "all are ready", func() bool {
			return r.phase("s1") == state.Ready && r.phase("s2") == state.Ready && r.phase("s3") == state.Ready && r.phase("s4") == state.Ready
		})
		crash := func(id string) {
			s := r.session(id)
			by := state.Authority{Container: s.Container, OwnerSeq: r.seqs[s.Container]}
			if _, err := r.store.End(t.Context(), by, state.End{Session: id, BindRev: s.BindRev, Reason: state.BrowserCrashed, Confirmed: true}); err != nil {
				t.Fatal(err)
			}
			pass(2 * time.Second)
		}
		check := func(when string, first, second float64) {
			t.Helper()
			if a, b := countedEnds(t, counts[0]), countedEnds(t, counts[1]); a != first || b != second {
				t.Errorf("%s: r1 has counted %v ends and r2 %v, want %v and %v", when, a, b, first, second)
			}
		}
		crash("s1")
		check("under r1", 1, 0)

		cuts[0].Store(true)
		r.until(10*time.Second, "r1 leads no more", func() bool { return !r.c.Leading() })
		crash("s2") // while nobody leads
		r.until(10*time.Second, "r2 leads", next.c.Leading)
		pass(2 * time.Second)
		check("of what ended between the reigns, which is nobody's", 1, 0)
		crash("s3")
		check("under r2", 1, 1)

		cuts[0].Store(false)
		cuts[1].Store(true)
		r.until(20*time.Second, "r1 leads again", r.c.Leading)
		pass(2 * time.Second)
		check("under r1 again", 1, 1)
		crash("s4")
		check("at last", 2, 1)
		if told := r.messages(state.EventEnded); len(told) != 3 {
			t.Errorf("told of %d ends: %q", len(told), told)
		}
	})
}
