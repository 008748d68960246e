package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
)

func TestADocumentWhoseSessionNobodyKnows(t *testing.T) {
	lost := document("s1", "ready")
	tests := []struct {
		name  string
		world plan.Snapshot
		want  []string
	}{
		{"is told that its container was lost", world(container("c1"), lost), []string{"project s1 ended"}},
		{"also where there is no container at all", world(lost), []string{"project s1 ended"}},
		{"waits while ECS has not been listed", world(lost, func(s *plan.Snapshot) { s.TasksAt = time.Time{} }), nil},
		{"waits while the view of the store is old", world(lost, func(s *plan.Snapshot) { s.StoreAge = time.Minute }), nil},
		{"waits while the store is rebuilt", world(lost, func(s *plan.Snapshot) { s.StoreTrouble = "store was wiped" }), nil},
		{"waits for the second listing of documents", world(lost, func(s *plan.Snapshot) { s.DocumentsAt = time.Time{} }), nil},
		{"waits for a container that is silent",
			world(lost, container("c1", func(c *state.Container) { c.SeenAt = ago(time.Minute) })), nil},
		{"waits for a container that has not reported yet",
			world(lost, container("c1", phase(state.PendingVerification))), nil},
		{"waits while a container reports a session that nobody knows",
			world(lost, container("c1", func(c *state.Container) { c.Health.Sessions = 1 })), nil},
		{"waits for a running task that has not registered",
			world(lost, task("arn:x", func(t *state.Task) { t.ContainerID, t.StartedAt, t.CreatedAt = "x", ago(time.Second), ago(time.Second) })), nil},
		{"does not wait for a container that is gone", world(lost, container("c1", phase(state.Gone), func(c *state.Container) { c.SeenAt = ago(time.Hour) }),
			task("arn:c1", stopped)), []string{"project s1 ended"}},
		{"does not wait for a draining container that reports", world(lost, container("c1", phase(state.Draining), slots("s2"),
			func(c *state.Container) { c.Health.Sessions = 1 }), session("s2", state.Ready), document("s2", "ready")), []string{"project s1 ended"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := plan.Make(test.world, plan.Policy{Pool: pool})
			var projected []string
			for i, line := range brief(got) {
				if got.Actions[i].Kind() != plan.KindProject {
					continue
				}
				projected = append(projected, line)
				if p := got.Actions[i].(plan.Project); !p.Unknown || p.Reason != state.ContainerLost {
					t.Errorf("got %+v", p)
				}
			}
			if diff := cmp.Diff(test.want, projected); diff != "" {
				t.Errorf("(-want +got):\n%s\nholds: %v", diff, got.Holds)
			}
			held := slices.ContainsFunc(got.Holds, func(h plan.Hold) bool { return h.What == plan.HoldDocument && h.ID == "s1" })
			if wants := test.want == nil && test.world.StoreTrouble == ""; held != wants {
				t.Errorf("held: %t, want %t: %v", held, wants, got.Holds)
			}
		})
	}
}

func TestIgnoredEdits(t *testing.T) {
	given := &state.Session{ID: "s1", UserID: "ann", Phase: state.Ready,
		Spec: []byte(`{"sessionId":"s1","userId":"ann","status":"pending","browserSettings":{"viewport":{"width":800},"locale":"a<b"}}`)}
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"nothing new":                  {string(given.Spec), nil},
		"another spelling of the same": {`{"userId":"ann","browserSettings":{"locale":"a\u003cb", "viewport":{"width":8e2}}}`, nil},
		"what may change":              {`{"userId":"ann","keepAlive":true,"timeout":5,"browserSettings":{"viewport":{"width":800},"locale":"a<b"}}`, nil},
		"another user":                 {`{"userId":"bob","browserSettings":{"viewport":{"width":800},"locale":"a<b"}}`, []string{"userId"}},
		"other settings":               {`{"userId":"ann","browserSettings":{"viewport":{"width":801},"locale":"a<b"}}`, []string{"browserSettings"}},
		"no settings":                  {`{"userId":"ann"}`, []string{"browserSettings"}},
		"both":                         {`{"userId":"","browserSettings":null}`, []string{"userId", "browserSettings"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := &state.Document{ID: "s1", Text: []byte(tc.text)}
			d.Spec, d.Err = state.ParseSpec("s1", d.Text)
			if diff := cmp.Diff(tc.want, plan.Ignored(given, d)); diff != "" {
				t.Error(diff)
			}
			pending := *given
			pending.Phase = state.Pending
			if settings := slices.Contains(tc.want, "browserSettings"); settings && !plan.Edited(&pending, d) {
				t.Error("other settings are no edit before the first binding")
			}
		})
	}
}
