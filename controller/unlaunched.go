package controller

import (
	"context"
	"time"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

const (
	// probeEvery is the pause between two looks at containers that nobody else tells of.
	probeEvery = 5 * time.Second
	// probeTimeout bounds one look, and probesAtOnce how many there are.
	probeTimeout = 2 * time.Second
	probesAtOnce = 100
)

// startProbes looks whether the silent containers that are no tasks of ECS are still there:
// nobody else would tell of their end.
func (w *world) startProbes(ctx context.Context, now time.Time) {
	if w.cfg.Refuses == nil || w.probing || now.Before(w.nextProbe) {
		return
	}
	addrs := map[string]string{}
	for _, c := range w.cfg.Mirror.Containers() {
		if len(addrs) < probesAtOnce && plan.Unlaunched(c) && c.Addr != "" && w.cfg.Mirror.Now().Sub(c.SeenAt) > state.OwnerLease {
			addrs[c.ID] = c.Addr
		}
	}
	w.nextProbe = now.Add(probeEvery)
	if len(addrs) == 0 {
		w.refusedSince = nil
		return
	}
	w.probing = true
	w.cfg.machine.beside(&w.running, func() {
		l := listing{began: now, whole: silentContainers, refused: map[string]bool{}}
		for id, addr := range addrs {
			bounded, cancel := context.WithTimeout(ctx, probeTimeout)
			l.refused[id] = w.cfg.Refuses(bounded, addr)
			cancel()
		}
		w.report(ctx, l)
	})
}

// mergeProbes takes in which containers refused to be reached.
func (w *world) mergeProbes(l listing) {
	w.probing = false
	since := map[string]time.Time{}
	for id, refused := range l.refused {
		if !refused {
			continue
		}
		since[id] = w.cfg.Mirror.Now()
		if was, already := w.refusedSince[id]; already {
			since[id] = was
		}
	}
	w.refusedSince = since
}
