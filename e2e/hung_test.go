package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A container whose task runs while its agent does nothing any more: the service notices it,
// waits, tells its clients, and puts another in its place.
func TestAgentFrozenForGood(t *testing.T) {
	s := startService(t, serviceOptions{env: map[string]string{"MIN_CONTAINERS": "2", "HUNG_AFTER": "30s", "PLACEMENT": "spread"}})
	eventually(t, 40*time.Second, "two containers are ready", func() error {
		ready := 0
		for _, c := range s.containers(t) {
			if c.Phase == "ready" {
				ready++
			}
		}
		if ready < 2 {
			return fmt.Errorf("there are %d", ready)
		}
		return nil
	})
	created, beside := s.alice.create(t, map[string]any{"keepAlive": true}), s.bob.create(t, map[string]any{"keepAlive": true})
	client, neighbour := dialCDP(t, created.ConnectURL), dialCDP(t, beside.ConnectURL)
	client.alive(t)
	neighbour.alive(t)
	frozen := s.containerOf(t, created.ID)
	if other := s.bob.get(t, beside.ID).ContainerID; other == frozen.ID {
		t.Fatal("both sessions are in one container: this proves nothing")
	}
	pid, ok := s.cloud.Pid(frozen.TaskARN)
	if !ok {
		t.Fatalf("no process is known of %s", frozen.TaskARN)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	held := func() (why string) {
		var plan struct {
			Holds []struct{ What, ID, Why string }
		}
		s.alice.want(t, http.MethodGet, "/v1/plan", nil, &plan)
		for _, h := range plan.Holds {
			if h.What == "container" && h.ID == frozen.ID {
				return h.Why
			}
		}
		return ""
	}
	eventually(t, 20*time.Second, "its silence is told of", func() error {
		if why := held(); !strings.Contains(why, "nothing is bound to it") {
			return errors.New(why)
		}
		return nil
	})
	t.Logf("held after %s: %s", time.Since(since).Round(100*time.Millisecond), held())
	if now := s.alice.get(t, created.ID); now.Phase != "ready" {
		t.Errorf("the session is %s already", now.Phase)
	}

	if ended := s.alice.awaitEnd(t, 60*time.Second, created.ID, "container_lost"); ended.Status != "ERROR" {
		t.Errorf("status is %s", ended.Status)
	}
	if took := time.Since(since); took < 25*time.Second {
		t.Errorf("it was given up after %s", took)
	}
	t.Logf("given up after %s", time.Since(since).Round(100*time.Millisecond))
	client.wantClose(t, 10*time.Second, 1011, "container_lost")
	eventually(t, 40*time.Second, "its task is stopped and another has taken its place", func() error {
		var tasks []struct{ ContainerID, LastStatus string }
		s.alice.want(t, http.MethodGet, "/v1/tasks", nil, &tasks)
		for _, task := range tasks {
			if task.ContainerID == frozen.ID && task.LastStatus != "STOPPED" {
				return fmt.Errorf("its task is %s", task.LastStatus)
			}
		}
		ready := 0
		for _, c := range s.containers(t) {
			if c.Phase == "ready" && c.ID != frozen.ID {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d others are ready", ready)
		}
		return nil
	})
	t.Logf("replaced after %s", time.Since(since).Round(100*time.Millisecond))
	neighbour.alive(t)

	type event struct{ Object, Reason string }
	want := []event{{frozen.ID, "held"}, {frozen.ID, "hung"}, {created.ID, "ended"}, {frozen.TaskARN, "stopped"}, {frozen.ID, "gone"}}
	eventually(t, 10*time.Second, "all is told, in its order", func() error {
		var events []event
		s.alice.want(t, http.MethodGet, "/v1/events?limit=1000", nil, &events)
		told := slices.DeleteFunc(slices.Clone(events), func(e event) bool { return !slices.Contains(want, e) })
		if !slices.Equal(told, want) {
			return fmt.Errorf("told were %+v", events)
		}
		return nil
	})
	if why := held(); why != "" {
		t.Errorf("it is still held: %s", why)
	}
	dialCDP(t, s.alice.create(t, nil).ConnectURL).alive(t)
}
