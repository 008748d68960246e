package controller

import (
	"context"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// startHearing reads what the replicas know of silent containers, if there are any.
func (w *world) startHearing(ctx context.Context, now time.Time) {
	if w.hearing || now.Before(w.nextHearing) {
		return
	}
	var silent []string
	for _, c := range w.cfg.Mirror.Containers() {
		if (c.Phase == state.ContainerReady || c.Phase == state.Draining) && w.cfg.Mirror.Now().Sub(c.SeenAt) > state.OwnerLease {
			silent = append(silent, c.ID)
		}
	}
	w.nextHearing = now.Add(state.WitnessInterval)
	if len(silent) == 0 {
		w.replicas, w.testimonies = nil, nil
		return
	}
	w.hearing = true
	w.cfg.machine.beside(&w.running, func() {
		l := listing{began: now, whole: testimonies}
		bounded, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		// In this order: a replica that has come meanwhile is expected to speak.
		if l.testimonies, l.err = w.cfg.Store.Testimonies(bounded, silent); l.err == nil {
			l.replicas, l.err = w.cfg.Store.Replicas(bounded)
		}
		if w.cfg.ReplicaGone != nil {
			l.replicas = slices.DeleteFunc(l.replicas, func(r state.Replica) bool {
				return !r.Live(w.cfg.Mirror.Now()) && w.cfg.ReplicaGone(bounded, r)
			})
		}
		w.report(ctx, l)
	})
}

// mergeHearing takes in what the replicas know. What could not be read is not known.
func (w *world) mergeHearing(l listing) {
	w.hearing = false
	w.replicas, w.testimonies = l.replicas, l.testimonies
	if l.err != nil {
		w.replicas, w.testimonies = nil, nil
	}
}
