package controller

import (
	"context"
	"sync"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// replicasAtOnce bounds how many replicas are asked at once.
const replicasAtOnce = 32

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
			l.replicas = w.dropGone(ctx, l.replicas)
		}
		w.report(ctx, l)
	})
}

// dropGone leaves out the replicas that are certainly dead. Only those whose announcement has
// lapsed are asked: one that drains takes no connections and serves clients still, and goes on
// being announced for as long as it does. They are asked side by side, each within a time of
// its own, so that many that do not answer take no longer than one.
func (w *world) dropGone(ctx context.Context, replicas []state.Replica) []state.Replica {
	var group sync.WaitGroup
	gone := make([]bool, len(replicas))
	slots := make(chan struct{}, replicasAtOnce)
	for i, r := range replicas {
		if r.Live(w.cfg.Mirror.Now()) {
			continue
		}
		slots <- struct{}{}
		w.cfg.machine.write(&group, func() {
			defer func() { <-slots }()
			bounded, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			gone[i] = w.cfg.ReplicaGone(bounded, r)
		})
	}
	group.Wait()
	var left []state.Replica
	for i, r := range replicas {
		if !gone[i] {
			left = append(left, r)
		}
	}
	return left
}

// mergeHearing takes in what the replicas know. What could not be read is not known.
func (w *world) mergeHearing(l listing) {
	w.hearing = false
	w.replicas, w.testimonies = l.replicas, l.testimonies
	if l.err != nil {
		w.replicas, w.testimonies = nil, nil
	}
}
