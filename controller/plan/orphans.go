package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/wallcrawler/wallcrawler/state"
)

// orphanDocument settles a document that says its session is under way while we know of no
// such session: its container was lost, and our record with it. Only a whole view may say so,
// because a container that has yet to report may hold it.
func (m *planner) orphanDocument(d *state.Document) {
	says := fmt.Sprintf("it says %q, but no such session is known", d.Spec.Status)
	if d.Spec.Status == "" {
		m.hold(HoldDocument, d.ID, says)
		return
	}
	if doubt := m.mayBeHeld(); doubt != "" {
		m.hold(HoldDocument, d.ID, says+"; "+doubt)
		return
	}
	m.do(Project{
		Target: Target{d.ID, "no container holds its session"},
		Status: string(state.Ended), Reason: state.ContainerLost, Unknown: true,
	})
}

// mayBeHeld says why some container may hold a session that we do not know of; empty if none
// can. It is worked out once for a plan.
func (m *planner) mayBeHeld() string {
	if m.heldDoubt == nil {
		doubt := m.findHolder()
		m.heldDoubt = &doubt
	}
	return *m.heldDoubt
}

func (m *planner) findHolder() string {
	if !m.destroy {
		return "this view is not whole"
	}
	if m.DocumentsAt.IsZero() {
		return "the documents have not been listed twice yet"
	}
	var doubts []string
	for _, c := range m.Containers {
		switch {
		case c.Phase == state.Gone:
		case c.Phase == state.PendingVerification || c.SeenAt.IsZero():
			doubts = append(doubts, fmt.Sprintf("container %s has not reported yet", c.ID))
		case m.suspect(c):
			doubts = append(doubts, fmt.Sprintf("container %s is silent", c.ID))
		case c.Health.Sessions > c.Used():
			doubts = append(doubts, fmt.Sprintf("container %s reports more sessions than are known", c.ID))
		}
	}
	for i := range m.Tasks {
		t := &m.Tasks[i]
		if c, registered := m.containers[t.ContainerID]; t.LastStatus == "RUNNING" && t.DesiredStatus != "STOPPED" &&
			(!registered || c.Phase == state.Gone) {
			doubts = append(doubts, fmt.Sprintf("task %s runs without a container that is known", t.ARN))
		}
	}
	if len(doubts) == 0 {
		return ""
	}
	slices.Sort(doubts)
	return doubts[0]
}

// Ignored names what a document says otherwise than its session was given, in what nobody may
// change any more. It parses both, so ask once for each reading of a document.
func Ignored(s *state.Session, d *state.Document) []string {
	before, err := state.ParseSpec(s.ID, s.Spec)
	if err != nil || d.Err != nil || d.Missing {
		return nil
	}
	var fields []string
	if d.Spec.UserID != s.UserID {
		fields = append(fields, "userId")
	}
	if !sameJSON(d.Spec.BrowserSettings, before.BrowserSettings) {
		fields = append(fields, "browserSettings")
	}
	return fields
}

// sameJSON tells whether two values mean the same: whoever writes a document back may space
// and escape it otherwise.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(orNull(a), &x) != nil || json.Unmarshal(orNull(b), &y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}

func orNull(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return []byte("null")
	}
	return raw
}
