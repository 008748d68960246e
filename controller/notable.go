package controller

import (
	"hash/fnv"
	"strings"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

// notable remembers what of the documents has been told already, and keeps what is to be told.
type notable struct {
	quarantined map[string]uint64 // by document id: the text that was found bad
	ignored     map[string]uint64 // by session id: the edit that was found to come too late
	events      []state.Event
}

func newNotable() notable {
	return notable{quarantined: map[string]uint64{}, ignored: map[string]uint64{}}
}

// look finds what a person may want to know of a document that was read anew.
func (n *notable) look(d *state.Document, session *state.Session) {
	if d.Err != nil {
		if sum := checksum(string(d.Text), d.Err.Error()); n.quarantined[d.ID] != sum {
			n.quarantined[d.ID] = sum
			n.tell(state.Event{Kind: state.KindDocument, Object: d.ID, Reason: state.EventQuarantined,
				Message: "the document is left alone: " + d.Err.Error()})
		}
		return
	}
	delete(n.quarantined, d.ID)
	if session == nil || session.Phase != state.Bound && session.Phase != state.Ready {
		return
	}
	fields := plan.Ignored(session, d)
	if len(fields) == 0 {
		delete(n.ignored, d.ID)
		return
	}
	if sum := checksum(d.Spec.UserID, string(d.Spec.BrowserSettings)); n.ignored[d.ID] != sum {
		n.ignored[d.ID] = sum
		n.tell(state.Event{Kind: state.KindSession, Object: d.ID, Reason: state.EventIgnored,
			Message: "its browser has been given away already, so that the edit of " + strings.Join(fields, " and ") + " changes nothing"})
	}
}

func (n *notable) tell(e state.Event) {
	if len(n.events) < maxEvents {
		n.events = append(n.events, e)
	}
}

// forget is called when a document is of no more interest.
func (n *notable) forget(id string) {
	delete(n.quarantined, id)
	delete(n.ignored, id)
}

// takeEvents gives what is to be told since the last call.
func (n *notable) takeEvents() []state.Event {
	taken := n.events
	n.events = nil
	return taken
}

func checksum(texts ...string) uint64 {
	h := fnv.New64a()
	for _, text := range texts {
		_, _ = h.Write([]byte(text))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}
