package plan

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wallcrawler/wallcrawler/state"
)

// readDocuments compares the requesters' documents with the sessions: new wishes are
// admitted, edits taken over, final wishes obeyed, our phases shown.
func (m *planner) readDocuments() {
	for _, id := range slices.Sorted(maps.Keys(m.Documents)) {
		d := m.Documents[id]
		session, known := m.sessions[id]
		switch {
		case d.Err != nil:
			m.hold(HoldDocument, id, d.Err.Error())
		case known && m.StoreTrouble == "":
			m.compare(session, d)
		case known && d.Missing && session.Live() && m.Now.Before(session.Deadline):
			m.restoreDocument(session)
		case known || d.Missing || d.Spec.Final() || d.Spec.Status == string(state.Ended):
		case m.StoreTrouble != "":
		case d.Spec.Status == state.StatusPending:
			if remaining := m.remaining(d, d.Spec.Length()); remaining > 0 {
				m.do(Admit{Target{id, "a document wishes for it"}, d, remaining})
			}
		default:
			m.orphanDocument(d)
		}
	}
}

// compare settles one session against its document.
func (m *planner) compare(s *state.Session, d *state.Document) {
	switch {
	case d.Missing:
		m.missing(s)
	case s.Live() && d.Spec.Final():
		m.end(s, state.Released, "its document says "+d.Spec.Status)
	case s.Live():
		m.amend(s, d)
		if s.Phase == state.Ready && d.Spec.Status != string(state.Ready) {
			m.do(Project{Target: Target{s.ID, "it is ready"}, Status: string(state.Ready)})
		}
	case s.Phase == state.Ended && !d.Spec.Final() && d.Spec.Status != string(state.Ended):
		m.do(Project{Target: Target{s.ID, "it has ended"}, Status: string(state.Ended), Reason: s.Reason})
	}
}

// remaining is what is left now of a document's time; without any, length counts. Zero or less:
// it has run out since it was read.
func (m *planner) remaining(d *state.Document, length time.Duration) time.Duration {
	if d.TTL <= 0 {
		return length
	}
	if read, known := m.Found[d.ID]; known {
		return d.TTL - m.Now.Sub(read)
	}
	return d.TTL
}

// missing settles a live session whose document is gone before its deadline. That is not a
// wish by itself: keys are evicted, failovers lose them. But if nobody had seen it for long it
// may be one: a Lambda's "terminated" lives only for 300 s.
func (m *planner) missing(s *state.Session) {
	if !s.Live() || !m.Now.Before(s.Deadline) {
		return // superviseSessions sees the deadline
	}
	if m.Unseen[s.ID] > m.RestoreWithin {
		m.end(s, state.Released, "its document is gone, and was not watched when it went")
		return
	}
	m.restoreDocument(s)
}

func (m *planner) restoreDocument(s *state.Session) {
	m.do(Restore{Target{s.ID, "its document was lost before its deadline"}, s.Spec, s.Deadline.Sub(m.Now)})
}

// Edited tells whether a document says something else than its session was admitted with or
// last amended to, in what a requester may change: timeout, keepAlive, metadata, and until it
// is bound the browser's settings. It parses both, so ask once for each reading of a document.
func Edited(s *state.Session, d *state.Document) bool {
	before, err := state.ParseSpec(s.ID, s.Spec)
	if err != nil || d.Err != nil || d.Missing {
		return false
	}
	return d.Spec.KeepAlive != s.KeepAlive || d.Spec.Timeout != before.Timeout ||
		!bytes.Equal(d.Spec.UserMetadata, before.UserMetadata) ||
		s.Phase == state.Pending && !sameJSON(d.Spec.BrowserSettings, before.BrowserSettings)
}

// amend takes over what a requester changed while its session lives. The time to live of the
// document is the wish about the deadline; one without any leaves the deadline as it is.
func (m *planner) amend(s *state.Session, d *state.Document) {
	if !m.Edited[s.ID] {
		return
	}
	remaining := m.remaining(d, s.Deadline.Sub(m.Now))
	if remaining <= 0 {
		return // it has run out, and its next reading shows that
	}
	m.do(Amend{Target{s.ID, "its requester edited the document"}, d.Text, d.Spec.KeepAlive, remaining})
}

// superviseSessions ends what is over, takes back what no container makes ready, and settles
// what a lost container held.
func (m *planner) superviseSessions() {
	for _, s := range m.Sessions {
		if m.ended[s.ID] {
			continue
		}
		switch s.Phase {
		case state.Pending:
			if !m.superviseDeadline(s) && s.Waited > m.WaitLimit {
				m.end(s, state.Failed, fmt.Sprintf("it waited over %s for a free slot", m.WaitLimit))
			}
		case state.Bound, state.Ready, state.Ending:
			m.superviseHeld(s)
		case state.Ended:
		}
	}
}

// superviseDeadline ends a live session whose time is up.
func (m *planner) superviseDeadline(s *state.Session) (ended bool) {
	if !s.Live() || s.Deadline.IsZero() || m.Now.Before(s.Deadline) {
		return false
	}
	m.end(s, state.DeadlinePassed, "")
	return true
}

// superviseHeld settles one session that holds a slot.
func (m *planner) superviseHeld(s *state.Session) {
	if c, ok := m.containers[s.Container]; !ok || c.BootID != s.BootID || c.Phase == state.Gone || c.GivenUp() {
		m.widowed(s, c)
		return
	}
	if m.superviseDeadline(s) || s.Phase != state.Bound {
		return
	}
	switch {
	case s.Refused != "":
		m.unbind(s, s.Refused)
	case m.past(s.BoundAt, m.BindDeadline):
		m.unbind(s, fmt.Sprintf("no browser within %s", m.BindDeadline))
	}
}

// widowed settles a session whose container, or that life of it, is gone or given up (c may be
// nil).
func (m *planner) widowed(s *state.Session, c *state.Container) {
	if c == nil && !m.destroy {
		m.hold(HoldDestruction, s.ID, "its container is not in this view")
		return
	}
	why := "its container is gone"
	reason := state.ContainerLost
	if c != nil && c.BootID != s.BootID {
		why = "its container was restarted"
	} else if c != nil && c.GivenUp() {
		why = "its container answered nobody any more"
	} else if c != nil {
		if t, ok := m.tasks[c.TaskARN]; ok && t.Stopped() {
			why = stopText(t)
			if t.StopCode == state.StopCodeUser {
				reason = state.StoppedExternally // we stop only what is empty
			}
		}
	}
	switch {
	case s.Phase == state.Bound && s.Attempts < m.MaxAttempts:
		m.do(Unbind{Target{s.ID, why}, s.BindRev})
	case s.Phase == state.Bound:
		m.do(End{Target{s.ID, m.failedText(s, why)}, s.BindRev, state.Failed, true})
	default:
		m.do(End{Target{s.ID, why}, s.BindRev, reason, true})
	}
}

func (m *planner) failedText(s *state.Session, last string) string {
	return fmt.Sprintf("%d containers could not serve it; the last: %s", s.Attempts, last)
}

// unbind takes a bound session back, or gives up after the last attempt.
func (m *planner) unbind(s *state.Session, why string) {
	if s.Attempts >= m.MaxAttempts {
		m.do(End{Target{s.ID, m.failedText(s, why)}, s.BindRev, state.Failed, false})
		return
	}
	m.do(Unbind{Target{s.ID, why}, s.BindRev})
}

// end begins the end of a live session, once a plan.
func (m *planner) end(s *state.Session, reason state.Reason, message string) {
	if m.ended[s.ID] {
		return
	}
	m.ended[s.ID] = true
	// Never confirmed: what is pending in this view may have been bound since, and then its
	// container has it to give back. The store ends what is pending at once all the same.
	m.do(End{Target{s.ID, message}, s.BindRev, reason, false})
}
