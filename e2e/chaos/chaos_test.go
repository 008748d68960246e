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
