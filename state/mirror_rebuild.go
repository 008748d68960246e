package state

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// leavingMargin is for the store's clock: a failover may set it back.
	leavingMargin = time.Minute
	// maxMemory is how old a view may be that still tells a record which was lost from one whose
	// time was up: ended sessions leave the index after EndedListed.
	maxMemory = EndedListed - leavingMargin
	// maxSessionMemory and maxContainerMemory are the same of the records themselves.
	maxSessionMemory   = EndedKept - time.Hour
	maxContainerMemory = GoneKept - leavingMargin
	// othersFirst is how long a replica with an old memory leaves it to others to give back theirs:
	// longer than it takes them to find a loss.
	othersFirst = 2 * DefaultRelist
)

// doubts are records that the store has denied to somebody although they are mirrored.
type doubts struct{ sessions, containers []string }

// highest is the highest revision seen so far. It is asked for before the store is: what the
// store shows then is not to be below it.
func (m *Mirror) highest() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.seq, m.sessions.highest(), m.containers.highest(), m.launches.highest())
}

// lost says how the store has lost data that this mirror remembers; empty: it has not. Callers
// hold mu.
func (m *Mirror) lost(index Index, seen int64) string {
	if !m.synced {
		return ""
	}
	if was := m.filling.Incarnation; was != "" && index.Incarnation != was {
		return "store was wiped"
	}
	if index.Seq < seen {
		return "store was rolled back"
	}
	if m.reborn != "" {
		return m.reborn
	}
	if kind, id := m.older(index); id != "" {
		return fmt.Sprintf("store was rolled back: it has %s %s as it was before", kind, id)
	}
	if kind, id := m.absent(index); id != "" {
		return fmt.Sprintf("store was rolled back: it lacks what it had of %s %s", kind, id)
	}
	return ""
}

// older finds a record that the store has under a lower revision than the one it gave to this
// mirror: revisions never go down, whatever the record is about and however long ago that was.
func (m *Mirror) older(index Index) (kind Kind, id string) {
	if id = m.sessions.older(index.Sessions, index.Seq); id != "" {
		return KindSession, id
	}
	if id = m.containers.older(index.Containers, index.Seq); id != "" {
		return KindContainer, id
	}
	return KindLaunch, m.launches.older(index.Launches, index.Seq)
}

// absent finds a record that the store lacks and that cannot have left in peace: its time in the
// index is not up. A container that is gone may be missing, because its id never comes again.
func (m *Mirror) absent(index Index) (kind Kind, id string) {
	age := m.memoryAge()
	for _, s := range m.sessions.missing(index.Sessions, index.Seq) {
		listed := s.Phase == Ended && index.Time.Before(s.EndedAt.Add(EndedListed-leavingMargin))
		if listed || s.Phase != Ended && age <= maxMemory {
			return KindSession, s.ID
		}
	}
	for _, c := range m.containers.missing(index.Containers, index.Seq) {
		if c.Phase != Gone && age <= maxContainerMemory {
			return KindContainer, c.ID
		}
	}
	for _, l := range m.launches.missing(index.Launches, index.Seq) {
		if index.Time.Before(l.CreatedAt.Add(LaunchKept - leavingMargin)) {
			return KindLaunch, l.ID
		}
	}
	return "", ""
}

// contradicts tells whether a session that the store shows was over already: only a store that
// has forgotten its end, and gone on since, shows it so. What has ended stays ended, or is being
// ended again. Callers hold mu.
func (m *Mirror) contradicts(s *Session) bool {
	known, ok := m.sessions.byID[s.ID]
	if !ok || known.Phase != Ended || !s.Live() || s.Rev <= known.Rev {
		return false
	}
	if kept, _ := known.RestoredFor(m.storeTime); kept < 0 {
		return false // so long ago that its id may have been used again
	}
	m.reborn = fmt.Sprintf("store was rolled back: session %s has ended, and is %s again", s.ID, s.Phase)
	m.Relist()
	return true
}

// contradictsStop tells the same of a container that was stopping, from which there is no way
// back: its task may have been told to stop. Callers hold mu.
func (m *Mirror) contradictsStop(c *Container) bool {
	known, ok := m.containers.byID[c.ID]
	if !ok || known.Phase != Stopping || c.BootID != known.BootID || c.Rev <= known.Rev ||
		c.Phase == Stopping || c.Phase == Gone || c.Phase == Draining && c.Closing {
		return false
	}
	m.reborn = fmt.Sprintf("store was rolled back: container %s was stopping, and is %s again", c.ID, c.Phase)
	m.Relist()
	return true
}

// memoryAge is how long ago this mirror last followed the whole store. Single records that were
// read since tell nothing of the others. Callers hold mu.
func (m *Mirror) memoryAge() time.Duration {
	if m.listedAt.IsZero() {
		return 0
	}
	return m.now().Sub(m.listedAt)
}

// standing is what a mirror does about a loss.
type standing int

const (
	giveBack      standing = iota
	waitForOthers          // they may know better
	yieldToOthers          // they know better, and have given back what they know
)

// standing decides whether this mirror's memory is fit to be given back. One that is old may hold
// what the others know to be over: their memory comes first, and makes it useless. If nobody
// gives back anything, the store was out of reach for all, and an old memory is the best there is.
func (m *Mirror) standing(lost string, index Index) standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := m.memoryAge()
	if age <= maxMemory {
		return giveBack
	}
	if index.GivenBack >= m.seq {
		m.log.Warn("store lost data, and was given back what others remember: this replica's memory is older, and dropped",
			"because", lost, "age", age.Round(time.Second))
		m.reborn = ""
		return yieldToOthers
	}
	if m.lostAt.IsZero() {
		m.lostAt = m.now()
		m.log.Warn("store lost data: this replica's memory is old, so that others are waited for who may know better",
			"because", lost, "age", age.Round(time.Second), "retryIn", othersFirst)
	}
	if m.now().Sub(m.lostAt) < othersFirst {
		m.trouble = lost
		return waitForOthers
	}
	return giveBack
}

// tellForgotten tells of records that an old view is about to drop without a sign that they are
// over: containers that are not gone, and open launches, whose time in the store was up. (Of
// sessions the record itself was looked for.) Callers hold mu.
func (m *Mirror) tellForgotten(index Index) {
	age := m.memoryAge()
	if age <= maxMemory {
		return
	}
	var sessions, containers, launches int
	var forgotten []string
	for _, s := range m.sessions.missing(index.Sessions, index.Seq) {
		if s.Phase != Ended {
			sessions++
			forgotten = append(forgotten, s.ID)
		}
	}
	for _, c := range m.containers.missing(index.Containers, index.Seq) {
		if c.Phase != Gone {
			containers++
			forgotten = append(forgotten, c.ID)
		}
	}
	for _, l := range m.launches.missing(index.Launches, index.Seq) {
		if l.Open() {
			launches++
			forgotten = append(forgotten, l.ID)
		}
	}
	if len(forgotten) > 0 {
		m.log.Warn("view of the store was old: records are dropped that the store has no more, and that were not known to be over",
			"age", age.Round(time.Second), "sessions", sessions, "containers", containers, "launches", launches,
			"record", strings.Join(forgotten[:min(len(forgotten), 20)], " "))
	}
}

// Doubt has the mirror look for a session or container that the store has denied to have,
// although it is mirrored: it may have been lost.
func (m *Mirror) Doubt(kind Kind, id string) {
	m.mu.Lock()
	switch kind {
	case KindSession:
		if !slices.Contains(m.doubted.sessions, id) {
			m.doubted.sessions = append(m.doubted.sessions, id)
		}
	case KindContainer:
		if !slices.Contains(m.doubted.containers, id) {
			m.doubted.containers = append(m.doubted.containers, id)
		}
	case KindDocument, KindLaunch, KindFleet, KindPool, KindLease, KindAll:
	}
	m.mu.Unlock()
	m.Relist()
}

// missing says which of the doubted records, live as far as is known, was not found.
func (m *Mirror) missing(d doubts, found Records) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := m.memoryAge()
	for _, id := range d.sessions {
		s, known := m.sessions.byID[id]
		if known && age <= maxSessionMemory && s.Phase != Ended && !slices.ContainsFunc(found.Sessions, func(f *Session) bool { return f.ID == id }) {
			return fmt.Sprintf("store has lost data: session %s", id)
		}
	}
	for _, id := range d.containers {
		c, known := m.containers.byID[id]
		if known && age <= maxContainerMemory && c.Phase != Gone && !slices.ContainsFunc(found.Containers, func(f *Container) bool { return f.ID == id }) {
			return fmt.Sprintf("store has lost data: container %s", id)
		}
	}
	return ""
}

// restore gives the store back what this mirror remembers, and asks for a relist.
func (m *Mirror) restore(ctx context.Context, lost string, seen int64) error {
	m.mu.Lock()
	if m.trouble == "" {
		m.log.Error("store lost data: it is given back what is remembered, and nothing is bound or stopped until it is whole",
			"because", lost)
	}
	m.trouble, m.givingBack = lost, true
	r := Records{Sessions: m.sessions.list(), Containers: m.containers.list(), Launches: m.launches.list(), Knew: m.knew}
	m.mu.Unlock()
	began := m.now()
	err := m.src.Restore(ctx, seen, r)
	m.mu.Lock()
	m.givingBack = false
	if err == nil {
		m.gaveBack = m.now()
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.log.Info("store given back what was remembered", "sessions", len(r.Sessions), "containers", len(r.Containers),
		"launches", len(r.Launches), "took", m.now().Sub(began))
	m.mu.Lock()
	// Whatever the store is now: what this mirror knows is in it.
	m.filling.Incarnation, m.reborn, m.lostAt = "", "", time.Time{}
	m.mu.Unlock()
	m.Relist()
	return nil
}

// Trouble says how the store has lost data that may still be missing; empty: nothing is. It is
// told to everybody: what record has shown the loss is for the log alone.
func (m *Mirror) Trouble() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.trouble != "":
		said, _, _ := strings.Cut(m.trouble, ":")
		return said
	case !m.filling.LostAt.IsZero():
		return "store has lost data and is being rebuilt"
	}
	return ""
}

// ApplyWhole takes in that this replica has marked a filling of the store whole.
func (m *Mirror) ApplyWhole(f Filling) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.filling.Incarnation == f.Incarnation && m.filling.LostAt.Equal(f.LostAt) {
		m.filling.LostAt, m.filling.Whole = time.Time{}, true
	}
}

// Filling tells how the store came by what it holds, as last read. Of a store that has lost data
// and was not given it back yet there is nothing to tell: what was read before is no longer so.
func (m *Mirror) Filling() Filling {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trouble != "" {
		return Filling{}
	}
	return m.filling
}
