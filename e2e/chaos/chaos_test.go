//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	playRoles()
	os.Exit(m.Run())
}

// One fault of all, so that the others are there when somebody wants them.
func TestRedisRefuses(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-run", "^Redis refuses"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.HasSuffix(out.String(), "1 passed, 0 failed\n") {
		t.Errorf("it ends otherwise:\n%s", out.String())
	}
}

// Too little traffic must not pass for traffic that nothing happened to.
func TestTooLittleTrafficFails(t *testing.T) {
	r := &round{world: &world{}}
	for range clientCount {
		r.crowd.clients = append(r.crowd.clients, &client{})
	}
	before := r.crowd.snapshot()
	if err := r.judge(before, 10*time.Second); err == nil || strings.Count(err.Error(), "too little traffic") != 2 {
		t.Errorf("without any traffic: %v", err)
	}
	for _, c := range r.crowd.clients {
		c.answers = 50
	}
	r.crowd.visits.Store(3)
	if err := r.judge(before, 10*time.Second); err != nil {
		t.Errorf("with half of the traffic: %v", err)
	}
	r.crowd.clients[0].lose(errOver)
	if err := r.judge(before, 10*time.Second); err == nil {
		t.Error("a session that is lost passes")
	}
}

// Tasks beyond what there were sessions for must not pass for those of visitors.
func TestTasksWithoutSessionsFail(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	presences := []presence{{from: at(0)}, {at(1), at(5)}, {at(5), at(9)}, {at(6), at(7)}, {at(1), at(2)}}
	for since, want := range map[int]int{0: 3, 3: 3, 8: 2, 10: 1} {
		if got := peak(presences, at(since)); got != want {
			t.Errorf("since %d s there were %d at once, want %d", since, got, want)
		}
	}
	most := minContainers * slots
	for _, test := range []struct {
		started, expects, peak int
		ok                     bool
	}{
		{1, 1, 0, true}, {2, 1, 0, false}, {0, 1, 0, false}, {0, 0, most, true}, {1, 0, most, false}, {1, 0, most + 1, true},
		{3, 0, most + slots, false}, {3, 0, most + slots + 1, true}, {2, 1, most + 1, true},
	} {
		x := row{started: test.started, expects: test.expects, peak: test.peak}
		if err := x.countTasks(); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
