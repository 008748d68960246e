package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/agent"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

func TestRegistrationSaysWhatTheContainerIs(t *testing.T) {
	c := start(t, nil)
	got := c.reg
	if got.BootID == "" || got.Port == 0 {
		t.Errorf("no boot id or port in %+v", got)
	}
	want := wire.Registration{ContainerID: "cnt_1", IP: "127.0.0.1", Port: got.Port, Protocol: wire.Protocol,
		BootID: got.BootID, MaxSessions: 2, Version: "test"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c.svc.mu.Lock()
	defer c.svc.mu.Unlock()
	if c.svc.tokens[0] != token {
		t.Errorf("token %q", c.svc.tokens[0])
	}
}

func TestSessionServesItsOwnBrowser(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.report("a warm browser", func(r wire.Report) bool { return r.Warm == 1 })
	ready := o.session("s1", 7, wire.Limits{})
	if ready.Cold {
		t.Error("cold although a browser was warm")
	}
	r := o.report("its session", func(r wire.Report) bool { return len(r.Sessions) == 1 })
	want := []wire.SessionReport{{SessionID: "s1", BindRev: 7, Phase: wire.Serving, GraceLeft: -1, Idle: r.Sessions[0].Idle}}
	if diff := cmp.Diff(want, r.Sessions); diff != "" {
		t.Error(diff)
	}
	if r.BootID != c.reg.BootID || r.Ack != 1 {
		t.Errorf("report %+v", r)
	}

	one := c.connect("s1")
	if got := one.ask("hello"); got != "hello" {
		t.Errorf("echo %q", got)
	}
	o.report("one attached", func(r wire.Report) bool {
		return len(r.Sessions) == 1 && r.Sessions[0].Attached == 1 && r.Sessions[0].Connected
	})
	two := c.connect("s1")
	if a, b := one.ask("pid"), two.ask("pid"); a != b {
		t.Errorf("two clients of one session reached browsers %s and %s", a, b)
	}
	o.session("s2", 8, wire.Limits{})
	if a, b := one.ask("pid"), c.connect("s2").ask("pid"); a == b {
		t.Error("two sessions share a browser")
	}
	if env := one.ask("env"); strings.Contains(env, "canary") {
		t.Error("a secret in the browser's environment")
	}
}

func TestWarmBrowsersAreReplacedWhileSlotsAreFree(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.MaxSessions, cfg.Warm = 3, 2 })
	o := c.link(1)
	for i := range 3 {
		o.report("warm browsers", func(r wire.Report) bool { return r.Warm == min(2, 3+1-i) && len(r.Sessions) == i })
		if n := o.session(fmt.Sprint("s", i), int64(i+1), wire.Limits{}); n.Cold {
			t.Errorf("session %d is cold", i)
		}
	}
	// With no slot free there is one browser too many at most.
	c.connect("s2") // which is reported at once
	r := o.report("the last session", func(r wire.Report) bool { return len(r.Sessions) == 3 })
	if r.Warm > 1 {
		t.Errorf("%d warm browsers beside 3 sessions", r.Warm)
	}
}

func TestDeadWarmBrowserIsReplaced(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 1, wire.Limits{})
	o.report("the refill", func(r wire.Report) bool { return r.Warm == 1 && len(r.Sessions) == 1 })
	held := c.connect("s1").pid("pid")
	warm := 0
	for _, pid := range browsers(t, c.work) {
		if pid != held {
			warm = pid
		}
	}
	kill(t, warm)
	eventually(t, "another warm browser", func() bool {
		for _, pid := range browsers(t, c.work) {
			if pid != held && pid != warm {
				return true
			}
		}
		return false
	})
	o.session("s2", 2, wire.Limits{})
	if got := c.connect("s2").pid("pid"); got == warm {
		t.Error("the dead browser serves")
	}
}

func TestCreateIsObeyedOncePerBinding(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.session("s1", 5, wire.Limits{})
	first := c.connect("s1")
	pid := first.pid("pid")

	o.session("s1", 5, wire.Limits{})
	if got := first.pid("pid"); got != pid {
		t.Error("the same binding made another browser")
	}
	o.order(create("s1", 4, wire.Limits{}))
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1", BindRev: 4})
	o.notice(wire.SessionEnded, "s1") // of the lower binding: nothing is held
	if got := first.pid("pid"); got != pid {
		t.Error("a lower binding touched the session")
	}
	o.session("s1", 6, wire.Limits{})
	if code := first.closed().Code; code != websocket.CloseInternalServerErr {
		t.Errorf("client of the replaced binding was told %d", code)
	}
	if got := c.connect("s1").pid("pid"); got == pid {
		t.Error("a higher binding kept the browser")
	}
	if !dead(pid) {
		t.Error("the replaced browser lives")
	}
}

func TestContainerAtCapacityRefuses(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.MaxSessions = 1 })
	o := c.link(1)
	o.session("s1", 1, wire.Limits{})
	o.order(create("s2", 2, wire.Limits{}))
	if n := o.notice(wire.SessionError, "s2"); n.Error != "container is at capacity" || n.BindRev != 2 {
		t.Errorf("notice %+v", n)
	}
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1"})
	o.notice(wire.SessionEnded, "s1")
	o.session("s2", 3, wire.Limits{})
}

func TestDestroyLeavesNothing(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.Warm = 0 })
	o := c.link(1)
	if !o.session("s1", 1, wire.Limits{}).Cold {
		t.Error("not cold although nothing was warm")
	}
	cl := c.connect("s1")
	pid, child, profile := cl.pid("pid"), cl.pid("child"), cl.ask("profile")
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1", Reason: "revoked", CloseCode: 1008})
	if got := cl.closed(); got.Code != 1008 || got.Text != "revoked" {
		t.Errorf("client was told %+v", got)
	}
	if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "revoked" || n.BindRev != 1 {
		t.Errorf("notice %+v", n)
	}
	if !dead(pid) || !dead(child) {
		t.Error("a process of the browser lives")
	}
	if _, err := os.Stat(profile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the profile remains: %v", err)
	}
	r := o.report("no session", func(r wire.Report) bool { return len(r.Sessions) == 0 })
	if r.Ack != 2 {
		t.Errorf("ack %d", r.Ack)
	}
	if status, body := c.get(http.MethodGet, "/sessions/s1/json/version", nil); status != http.StatusGone {
		t.Errorf("an ended session answers %d %s", status, body)
	}
	// It is never brought back, and whoever asks again gets the same answer.
	o.order(create("s1", 1, wire.Limits{}))
	if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "revoked" {
		t.Errorf("notice %+v", n)
	}
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "unknown", BindRev: 9})
	if n := o.notice(wire.SessionEnded, "unknown"); n.BindRev != 9 {
		t.Errorf("notice %+v", n)
	}
}

func TestDestroyOfAStartingSessionIsAnswered(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	o.order(create("s1", 1, wire.Limits{}))
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1", BindRev: 1, Reason: "released"})
	if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "released" {
		t.Errorf("notice %+v", n)
	}
	o.report("no session", func(r wire.Report) bool { return len(r.Sessions) == 0 && r.Ack == 2 })
}

func TestBrowserThatEndsByItself(t *testing.T) {
	for _, tc := range []struct {
		name, message, reason string
	}{
		{"a crash is told within milliseconds", "crash", "browser_crashed"},
		{"a client may close it", "close", "released"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, nil)
			o := c.link(1)
			o.session("s1", 1, wire.Limits{KeepAlive: true})
			cl := c.connect("s1")
			child := cl.pid("child")
			began := time.Now()
			if err := cl.WriteMessage(websocket.TextMessage, []byte(tc.message)); err != nil {
				t.Fatal(err)
			}
			got := cl.closed()
			if took := time.Since(began); took > time.Second {
				t.Errorf("client was told after %s", took)
			}
			if tc.reason == "browser_crashed" && (got.Code != 1011 || got.Text != tc.reason) {
				t.Errorf("client was told %+v", got)
			}
			if n := o.notice(wire.SessionEnded, "s1"); n.Reason != tc.reason || n.Message == "" {
				t.Errorf("notice %+v", n)
			}
			if !dead(child) {
				t.Error("the browser's child lives")
			}
		})
	}
}

func TestBrowserThatDoesNotStartIsAnError(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.BrowserArgs = []string{brokenFlag} })
	o := c.link(1)
	o.order(create("s1", 1, wire.Limits{}))
	n := o.notice(wire.SessionError, "s1")
	if !strings.Contains(n.Error, "cannot open the display") || !strings.Contains(n.Error, "exit status 3") {
		t.Errorf("error %q", n.Error)
	}
	eventually(t, "health tells", func() bool {
		status, body := c.get(http.MethodGet, "/health", nil)
		return status == http.StatusOK && strings.Contains(body, "browsers do not start")
	})
	if n := strings.Count(c.logs.String(), "warm browser not started"); n > 5 {
		t.Errorf("%d starts without a pause", n)
	}
}

func TestUnsupportedSettingIsNamed(t *testing.T) {
	c := start(t, nil)
	o := c.link(1)
	w := create("s1", 1, wire.Limits{})
	w.Options = []byte(`{"viewport":{"width":800,"height":600},"extensionId":"e1"}`)
	o.order(w)
	if n := o.notice(wire.SessionError, "s1"); n.Error != "browserSettings.extensionId is not supported" {
		t.Errorf("error %q", n.Error)
	}
	w.Options = []byte(`{"viewport":{"width":800,"height":600},"userAgent":"Me/1.0 (x)","timezoneId":"Asia/Tokyo","blockAds":false}`)
	w.BindRev = 2
	o.order(w)
	if n := o.notice(wire.SessionReady, "s1"); !n.Cold {
		t.Error("warm although it has flags of its own")
	}
	cl := c.connect("s1")
	if got := cl.ask("size") + cl.ask("agent") + cl.ask("tz"); got != "800,600Me/1.0 (x)Asia/Tokyo" {
		t.Errorf("the browser got %q", got)
	}
}

func TestAgentToldToStopLetsSessionsEnd(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.DrainTimeout = 6 * patient })
	o := c.link(1)
	o.session("s1", 1, wire.Limits{})
	cl := c.connect("s1")
	c.stop()
	o.report("draining", func(r wire.Report) bool { return r.Draining && r.DrainAck == 0 && len(r.Sessions) == 1 })
	o.order(create("s2", 2, wire.Limits{}))
	if n := o.notice(wire.SessionError, "s2"); n.Error != "container is draining" {
		t.Errorf("error %q", n.Error)
	}
	cl.ask("still here")
	o.order(wire.Order{Type: wire.DestroySession, SessionID: "s1"})
	o.notice(wire.SessionEnded, "s1")
	<-c.done
	if c.err != nil {
		t.Errorf("error %v", c.err)
	}
}

func TestDrainTimeoutEndsWhatIsLeft(t *testing.T) {
	c := start(t, func(cfg *agent.Config) { cfg.DrainTimeout = 50 * time.Millisecond })
	o := c.link(1)
	o.session("s1", 1, wire.Limits{KeepAlive: true})
	cl := c.connect("s1")
	pid := cl.pid("pid")
	c.stop()
	if got := cl.closed(); got.Code != 1012 || got.Text != "shutdown" {
		t.Errorf("client was told %+v", got)
	}
	if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "shutdown" {
		t.Errorf("notice %+v", n)
	}
	o.report("the last one", func(r wire.Report) bool { return len(r.Sessions) == 0 && r.Draining })
	<-c.done
	if c.err != nil || !dead(pid) {
		t.Errorf("error %v, browser dead: %t", c.err, dead(pid))
	}
}

func TestLeftoversOfDeadAgentsAreRemoved(t *testing.T) {
	var stale, alive string
	start(t, func(cfg *agent.Config) {
		stale = filepath.Join(cfg.WorkDir, "agent-dead", "browser-1")
		if err := os.MkdirAll(stale, 0o700); err != nil {
			t.Fatal(err)
		}
		alive = cfg.WorkDir
	})
	if _, err := os.Stat(filepath.Dir(stale)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("leftovers remain: %v", err)
	}
	// A second agent does not touch the first one's.
	mine := directories(alive)
	second := start(t, func(cfg *agent.Config) { cfg.WorkDir = alive })
	second.shared = true
	second.stop()
	<-second.done
	if diff := cmp.Diff(mine, directories(alive)); diff != "" {
		t.Error(diff)
	}
}

func TestDirectoryThatItMadeIsRemoved(t *testing.T) {
	var dir string
	c := start(t, func(cfg *agent.Config) {
		dir = filepath.Join(cfg.WorkDir, "new", "work")
		cfg.WorkDir = dir
	})
	if len(directories(dir)) != 1 {
		t.Error("no directory of its own")
	}
	c.stop()
	<-c.done
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it remains: %v", err)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*agent.Config)
		want   string
	}{
		{"no container id", func(c *agent.Config) { c.ContainerID = "" }, "CONTAINER_ID"},
		{"no address to register at", func(c *agent.Config) { c.RegisterURL = "" }, "PROXY_ENDPOINT"},
		{"an address with another scheme", func(c *agent.Config) { c.RegisterURL = "ftp://x" }, "PROXY_ENDPOINT"},
		{"no slots", func(c *agent.Config) { c.MaxSessions = 0 }, "MAX_SESSIONS"},
		{"a missing browser", func(c *agent.Config) { c.Browser = "/nowhere/chrome" }, "/nowhere/chrome"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config(t, "http://127.0.0.1:1")
			tc.change(&cfg)
			err := agent.Run(context.Background(), cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that names %s", err, tc.want)
			}
		})
	}
}

func TestSecretNeverPrints(t *testing.T) {
	cfg := agent.Config{Token: token}
	for _, got := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), fmt.Sprintf("%s %q", cfg.Token, cfg.Token)} {
		if strings.Contains(got, "canary") {
			t.Errorf("printed: %s", got)
		}
	}
}
