package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// told is how soon a client must be told of what befell its browser.
const told = 2 * time.Second

func TestRedisGoneAtTheStart(t *testing.T) {
	s := newService(t, serviceOptions{redis: newRedis(t, "canaryPassword")})
	s.start(t)
	s.logged(t, 10*time.Second, "store unreachable, waiting for it")
	s.redis.start(t)
	s.awaitReady(t)
	// There is no container yet: the client is held until there is a browser.
	created := s.alice.create(t, nil)
	dialCDP(t, created.ConnectURL).alive(t)
}

func TestRedisSilent(t *testing.T) {
	s := startService(t, serviceOptions{})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	client := dialCDP(t, created.ConnectURL)
	s.redis.process.signal(t, syscall.SIGSTOP)

	began := time.Now()
	a := s.alice.do(t, http.MethodPost, "/v1/sessions", "{}")
	refused(t, a, http.StatusServiceUnavailable, "unavailable")
	if took := time.Since(began); took > 5*time.Second || a.header.Get("Retry-After") == "" {
		t.Errorf("the refusal took %s and says: %s", took, a.body)
	}
	client.alive(t)
	dialCDP(t, created.ConnectURL).alive(t)
	client.alive(t)

	s.redis.process.signal(t, syscall.SIGCONT)
	s.awaitReady(t)
	eventually(t, 20*time.Second, "sessions are created again", func() error {
		if a := s.alice.do(t, http.MethodPost, "/v1/sessions", "{}"); a.status != http.StatusOK {
			return errors.New(string(a.body))
		}
		return nil
	})
	client.alive(t)
}

func TestRedisGoneLater(t *testing.T) {
	s := startService(t, serviceOptions{})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)
	s.redis.kill(t)

	began := time.Now()
	a := s.alice.do(t, http.MethodPost, "/v1/sessions", "{}")
	if p := refused(t, a, http.StatusServiceUnavailable, "unavailable"); a.header.Get("Retry-After") == "" || p.RetryAfter < 1 {
		t.Errorf("the refusal does not say when to try again: %s", a.body)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the refusal took %s", took)
	}
	if a := call(t, http.MethodGet, s.url+"/ready", nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("/ready is %d: %s", a.status, a.body)
	}
	if a := call(t, http.MethodGet, s.url+"/health", nil); a.status != http.StatusOK {
		t.Errorf("/health is %d: a restart would cut the clients: %s", a.status, a.body)
	}
	client.alive(t)
	// A client that knows its session gets in also now.
	again := dialCDP(t, created.ConnectURL)
	again.alive(t)

	s.redis.start(t)
	s.awaitReady(t)
	eventually(t, 20*time.Second, "sessions are created again", func() error {
		a := s.alice.do(t, http.MethodPost, "/v1/sessions", "{}")
		if a.status != http.StatusOK {
			return errors.New(string(a.body))
		}
		return nil
	})
	fresh := s.alice.create(t, nil)
	dialCDP(t, fresh.ConnectURL).alive(t)
	client.alive(t)
	if now := s.alice.get(t, created.ID); now.Phase != "ready" {
		t.Errorf("the old session is %s: %s", now.Phase, now.EndReason)
	}
	s.alice.release(t, created.ID)
	client.wantClose(t, 10*time.Second, 1000, "released")
	again.wantClose(t, time.Second, 1000, "released")
}

func TestBrowserThatDoesNotStart(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "chromium")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho 'no usable sandbox' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newService(t, serviceOptions{agentEnv: []string{"BROWSER_PATH=" + broken}})
	s.start(t)
	s.awaitReady(t)
	var created session // perhaps it has failed by the time of the answer
	s.alice.want(t, http.MethodPost, "/v1/sessions", "{}", &created)
	ended := s.alice.awaitEnd(t, 60*time.Second, created.ID, "failed")
	if ended.Status != "ERROR" || !strings.Contains(ended.EndMessage, "no usable sandbox") {
		t.Errorf("it has ended as %s: %q", ended.Status, ended.EndMessage)
	}
	_, a, err := tryCDP(t, s.socket(created.ID, s.mint(t, created.ID)))
	if err == nil {
		t.Fatal("a session without a browser lets clients in")
	}
	if p := refused(t, a, http.StatusGone, "session_ended"); p.Reason != "failed" {
		t.Errorf("reason is %q", p.Reason)
	}
}

func TestBrowserKilled(t *testing.T) {
	s := startService(t, serviceOptions{})
	victim, bystander := s.alice.create(t, nil), s.alice.create(t, nil)
	client, beside := dialCDP(t, victim.ConnectURL), dialCDP(t, bystander.ConnectURL)
	beside.alive(t)
	if err := syscall.Kill(client.browserPid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	client.wantClose(t, told, 1011, "browser_crashed")
	if ended := s.alice.awaitEnd(t, told, victim.ID, "browser_crashed"); ended.Status != "ERROR" {
		t.Errorf("status is %s", ended.Status)
	}
	_, a, err := tryCDP(t, victim.ConnectURL)
	if err == nil {
		t.Fatal("a crashed browser lets clients in")
	}
	refused(t, a, http.StatusGone, "session_ended")
	beside.alive(t)
}

func TestAgentKilled(t *testing.T) {
	s := startService(t, serviceOptions{})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	client := dialCDP(t, created.ConnectURL)
	browser := client.browserPid(t)
	lost := s.containerOf(t, created.ID)
	pid, ok := s.cloud.Pid(lost.TaskARN)
	if !ok {
		t.Fatalf("no process is known of %s", lost.TaskARN)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	client.wantClose(t, told, 1011, "container_lost")
	s.alice.awaitEnd(t, 30*time.Second, created.ID, "container_lost")
	if err := syscall.Kill(browser, 0); err == nil && !zombie(browser) {
		t.Error("the browser has outlived its agent")
	}
	eventually(t, 30*time.Second, "the container is replaced", func() error {
		for _, c := range s.containers(t) {
			if c.Phase == "ready" && c.ID != lost.ID {
				return nil
			}
		}
		return fmt.Errorf("there are %+v", s.containers(t))
	})
	dialCDP(t, s.alice.create(t, nil).ConnectURL).alive(t)
}

func TestTaskThatNeverRegisters(t *testing.T) {
	// The first task sleeps; those after it are agents.
	once := filepath.Join(t.TempDir(), "once")
	script := fmt.Sprintf("if mkdir %s 2>/dev/null; then exec sleep 600; fi; exec %s agent", once, suite.binary)
	s := newService(t, serviceOptions{
		agent: []string{"/bin/sh", "-c", script},
		env:   map[string]string{"START_DEADLINE": "3s", "MAX_CONTAINERS": "2"},
	})
	s.start(t)
	s.awaitReady(t)
	s.awaitContainer(t)
	dialCDP(t, s.alice.create(t, nil).ConnectURL).alive(t)
	var tasks []struct{ ContainerID, LastStatus, StopCode string }
	eventually(t, 30*time.Second, "the task that sleeps is stopped", func() error {
		s.alice.want(t, http.MethodGet, "/v1/tasks", nil, &tasks)
		if left := sleepers(); left != "" {
			return errors.New(left)
		}
		return nil
	})
	registered := map[string]bool{}
	for _, c := range s.containers(t) {
		registered[c.ID] = true
	}
	for _, task := range tasks {
		if task.LastStatus != "STOPPED" && !registered[task.ContainerID] {
			t.Errorf("task of %s is %s and not registered", task.ContainerID, task.LastStatus)
		}
	}
}

// sleepers lists the tasks that still sleep.
func sleepers() string {
	var found []string
	for _, p := range processesOf(suite.tmp) {
		if strings.Contains(p, "sleep 600") {
			found = append(found, p)
		}
	}
	return strings.Join(found, "; ")
}

func TestServeStopsInOrder(t *testing.T) {
	s := startService(t, serviceOptions{env: map[string]string{"DRAIN_UNREADY": "1500ms", "DRAIN_TIMEOUT": "2s"}})
	created := s.alice.create(t, map[string]any{"keepAlive": true})
	client := dialCDP(t, created.ConnectURL)
	client.alive(t)
	var target struct{ TargetID string }
	client.must(t, "Target.createTarget", map[string]string{"url": "data:text/html,still here"}, &target)

	s.process.signal(t, syscall.SIGTERM)
	eventually(t, time.Second, "the service is not ready any more", func() error {
		if a := call(t, http.MethodGet, s.url+"/ready", nil); a.status != http.StatusServiceUnavailable {
			return errors.New(string(a.body))
		}
		return nil
	})
	a := s.alice.do(t, http.MethodPost, "/v1/sessions", "{}")
	refused(t, a, http.StatusServiceUnavailable, "draining")
	if a.header.Get("Retry-After") == "" {
		t.Error("the refusal does not say when to try again")
	}
	client.alive(t)
	eventually(t, 5*time.Second, "nothing is accepted any more", func() error {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), time.Second)
		if err == nil {
			_ = conn.Close()
			return errors.New("a connection was accepted")
		}
		return nil
	})
	client.alive(t) // joined clients may go on to the limit
	client.wantClose(t, 5*time.Second, 1012, "replica draining: connect again")
	if code := s.process.awaitExit(t, 10*time.Second); code != 0 {
		t.Errorf("serve has ended with status %d", code)
	}

	// The agent has not ended: another replica takes it over, and the page is there.
	s.start(t)
	s.awaitReady(t)
	back := dialCDP(t, created.ConnectURL)
	if pages := back.pages(t); !strings.Contains(strings.Join(pages, " "), "still") {
		t.Errorf("the page is gone: %v", pages)
	}
}
