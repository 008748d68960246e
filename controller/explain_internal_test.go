package controller

import (
	"testing"

	"github.com/wallcrawler/wallcrawler/controller/plan"
)

// What is held of a session is for its user, what is held of a container for everybody.
func TestHoldsAreMaskedThatAreAboutSessionsOfOthers(t *testing.T) {
	users := map[string]string{"s1": "alice", "s2": "bob", "d2": "bob"}
	e := Explanation{Holds: []Held{
		{plan.HoldDestruction, "", "ECS was last listed 3m0s ago"},
		{plan.HoldDestruction, "cnt_1", "drain waits for a whole, fresh view"},
		{plan.HoldDestruction, "arn:1", "stop_task waits for a whole, fresh view"},
		{plan.HoldDestruction, "s1", "its container is not in this view"},
		{plan.HoldDestruction, "s2", "its container is not in this view"},
		{plan.HoldSession, "s2", "no container has room for s2"},
		{plan.HoldDocument, "d2", "it names s1"},
		{plan.HoldContainer, "cnt_2", "it is silent"},
		{plan.HoldTask, "arn:2", "nothing is known of it"},
	}}
	want := []Held{e.Holds[0], e.Holds[1], e.Holds[2], e.Holds[3],
		{plan.HoldDestruction, masked, "its container is not in this view"},
		{plan.HoldSession, masked, "no container has room for " + masked},
		{plan.HoldDocument, masked, "it is no session's"},
		e.Holds[7], e.Holds[8]}
	e.mask(users, func(user string) bool { return user == "alice" })
	for i, got := range e.Holds {
		if got != want[i] {
			t.Errorf("got %+v, want %+v", got, want[i])
		}
	}
}
