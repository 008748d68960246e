package sim

import (
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// settling is how long it may take until a replica that remembers what the store has lost has
// noticed that: its next relist, and the time that the giving back takes.
const settling = 10 * time.Second

// underWay is how long a call may have been on its way: a slow one takes as long at most.
const underWay = 20*time.Second + time.Second

// losses are the times at which the store lost data, and what nobody could know after them.
type losses struct {
	w     *World
	all   []loss
	epoch int64 // that the store has gone back to, which is good until it gives another
}

// loss is of everything that was written after a moment.
type loss struct{ since, at time.Duration }

// strike loses what was written since then, by doing so. Epochs go back with it: whoever held the
// lease then may find itself the leader again, and the one whose lease was forgotten is fenced.
func (l *losses) strike(since time.Duration, epoch int64, lose func()) {
	lose()
	l.epoch = epoch
	l.all = append(l.all, loss{since, l.w.now})
	l.w.people.forgotten(since)
}

// lately tells whether the store lost data within that time.
func (l *losses) lately(d time.Duration) bool {
	return len(l.all) > 0 && l.w.now-l.all[len(l.all)-1].at < d
}

// between tells whether what was written at one time was lost by another.
func (l *losses) between(written, by time.Duration) bool {
	return slices.ContainsFunc(l.all, func(x loss) bool { return x.since <= written && written <= x.at && x.at <= by })
}

// lost tells whether what was written at that time was lost.
func (l *losses) lost(written time.Duration) bool {
	return slices.ContainsFunc(l.all, func(x loss) bool { return x.since <= written && written <= x.at })
}

// overtook tells whether what was written at that time was lost while a call that rests on it, and
// was decided upon at another time, may have been on its way.
func (l *losses) overtook(written, decided time.Duration) bool {
	return slices.ContainsFunc(l.all, func(x loss) bool {
		return x.since <= written && written <= x.at && decided <= x.at && l.w.now-x.at < underWay
	})
}

// underWay tells whether what was written at that time was lost, and a call that rests on it may still be on
// its way, that of a replica which stood still meanwhile above all.
func (l *losses) underWay(written time.Duration) bool {
	if !l.lost(written) {
		return false
	}
	last := l.all[len(l.all)-1].at
	return l.w.now-last < underWay || slices.ContainsFunc(l.w.replicas, func(r *replica) bool {
		return r.pausedUntil > last && l.w.now-r.pausedUntil < underWay
	})
}

// excuse tells whether nobody can be blamed for not knowing what was written at that time: it
// was lost, and whoever is there and reaches the store remembers it no more, or has not had the
// time to say so (see replica.hadTime).
func (l *losses) excuse(written time.Duration, remembers func(m *state.Mirror) bool) bool {
	lost := l.lost(written)
	if !lost || l.lately(settling) {
		return lost
	}
	for _, r := range l.w.replicas {
		if r.hadTime(l.all[len(l.all)-1].at) && remembers(r.mirror) {
			return false
		}
	}
	return true
}

// hadTime tells whether a replica reaches the store, and could have noticed a loss of that time and
// given back what it remembers: it has read the whole store since, or nothing has kept it from that
// for long enough. A slow call keeps it as a pause does, the one that gives back above all.
func (r *replica) hadTime(loss time.Duration) bool {
	now := r.w.now
	if !r.up || max(r.pausedUntil, r.cutUntil, r.blindUntil) > now {
		return false
	}
	return r.listed > loss || now-max(r.keptUntil, r.pausedUntil, r.cutUntil, r.blindUntil, r.w.storm.outageUntil) >= settling
}

// launch tells whether nobody can know of a launch that was recorded at that time.
func (l *losses) launch(id string, written time.Duration) bool {
	return l.excuse(written, func(m *state.Mirror) bool { _, known := m.Launch(id); return known })
}

// orphan tells whether nobody can know of a task any more: its records were lost together with
// all who remembered them, and it does not say who it is. Containers of the first version do so
// once in their lives.
func (l *losses) orphan(t *task) bool {
	if p := t.process; p != nil && p.registeredAt != 0 {
		return l.w.protocol == 1 &&
			l.excuse(p.registeredAt, func(m *state.Mirror) bool { _, known := m.Container(p.id); return known })
	}
	return l.launch(t.launch, t.recordedAt)
}

// forgotten notes what became of the wishes that were written since then.
func (p *people) forgotten(since time.Duration) {
	for _, id := range p.open {
		x := p.wishes[id]
		d, err := p.w.store.Document(background, id)
		gone := err != nil || d.Missing
		if x.overAt >= max(1, since) && (gone || !d.Spec.Final()) {
			x.overAt, x.unheard = 0, true
		}
		if gone || string(d.Text) != x.text {
			x.evictedAt = max(1, p.w.now)
		}
	}
}
