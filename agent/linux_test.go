package agent_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/wallcrawler/wallcrawler/agent"
	"github.com/wallcrawler/wallcrawler/proxy/wire"
)

// browsers lists the processes, but not their children, that use a profile below dir.
func browsers(t *testing.T, dir string) []int {
	t.Helper()
	var pids []int
	for pid, args := range processes(t) {
		if bytes.Contains(args, []byte("--user-data-dir="+dir)) && !bytes.Contains(args, []byte("--type=")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// anyOf lists every process that mentions dir.
func anyOf(t *testing.T, dir string) []int {
	t.Helper()
	var pids []int
	for pid, args := range processes(t) {
		if bytes.Contains(args, []byte(dir)) && !dead(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func processes(t *testing.T) map[int][]byte {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int][]byte{}
	for _, path := range paths {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if args, err := os.ReadFile(path); err == nil {
			all[pid] = args
		}
	}
	return all
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("no process to kill: %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// runAgent is the agent as a process of its own, described by JSON.
func runAgent(text string) {
	var cfg agent.Config
	must(json.Unmarshal([]byte(text), &cfg))
	cfg.Token = token // a secret does not survive its own JSON
	if err := agent.Run(untilTerminated(), cfg); err != nil {
		must(err)
	}
	os.Exit(0)
}

// process starts an agent as a process of its own.
func process(t *testing.T, change func(*agent.Config)) (*container, *exec.Cmd, io.Closer) {
	t.Helper()
	svc := newService(t)
	cfg := config(t, svc.url)
	change(&cfg)
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], agentFlag+string(text))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := &container{t: t, svc: svc, work: cfg.WorkDir}
	select {
	case c.reg = <-svc.registered:
	case <-time.After(patient):
		t.Fatal("no registration")
	}
	c.addr = net.JoinHostPort(c.reg.IP, strconv.Itoa(c.reg.Port))
	return c, cmd, stdin
}

func TestDeathOfTheAgentLeavesNoBrowser(t *testing.T) {
	for _, tc := range []struct {
		name  string
		exe   string
		clean bool // also its files
		die   func(*exec.Cmd, io.Closer) error
	}{
		{"killed", standInPath(), false, func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Kill() }},
		{"killed, with a real browser", realBrowser, false, func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Kill() }},
		{"its standard input ended", standInPath(), true, func(_ *exec.Cmd, stdin io.Closer) error { return stdin.Close() }},
		{"terminated", standInPath(), true, func(cmd *exec.Cmd, _ io.Closer) error { return cmd.Process.Signal(syscall.SIGTERM) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, cmd, stdin := process(t, func(cfg *agent.Config) {
				cfg.ExitOnStdinEOF, cfg.Browser, cfg.DrainTimeout = true, tc.exe, 100*time.Millisecond
				if tc.exe == realBrowser {
					needReal(t)
					cfg.BrowserArgs = nil
				}
			})
			o := c.link(1)
			o.session("s1", 1, wire.Limits{})
			o.report("a warm one beside it", func(r wire.Report) bool { return r.Warm == 1 && len(r.Sessions) == 1 })
			if n := len(browsers(t, c.work)); n != 2 {
				t.Fatalf("%d browsers, want 2", n)
			}
			if err := tc.die(cmd, stdin); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			eventually(t, "no browser is left", func() bool { return len(browsers(t, c.work)) == 0 })
			if tc.exe == realBrowser {
				eventually(t, "no renderer is left", func() bool { return len(anyOf(t, c.work)) == 0 })
			}
			if left := directories(c.work); tc.clean && len(left) > 0 {
				t.Errorf("files left: %v", left)
			}
		})
	}
}

const realBrowser = "/usr/lib/chromium/chromium-headless-shell"

func standInPath() string { return os.Args[0] }

func needReal(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(realBrowser); err != nil {
		t.Skipf("no real browser (apt-get install chromium-headless-shell): %v", err)
	}
}

func TestRealBrowser(t *testing.T) {
	needReal(t)
	c := start(t, func(cfg *agent.Config) { cfg.Browser, cfg.BrowserArgs = "", nil })
	o := c.link(1)
	o.report("a warm browser", func(r wire.Report) bool { return r.Warm == 1 })
	if o.session("s1", 1, wire.Limits{}).Cold {
		t.Error("cold although a browser was warm")
	}
	cl := c.connect("s1")
	var version struct {
		Result struct{ Product, UserAgent string }
	}
	if err := json.Unmarshal([]byte(cl.ask(`{"id":1,"method":"Browser.getVersion"}`)), &version); err != nil || !strings.Contains(version.Result.Product, "Chrome/") {
		t.Errorf("version %+v: %v", version, err)
	}
	if status, body := c.get("GET", "/sessions/s1/json/version", nil); status != 200 || !strings.Contains(body, "webSocketDebuggerUrl") {
		t.Errorf("json/version: %d %s", status, body)
	}
	status, body := c.get("PUT", "/sessions/s1/json/new?about:blank", nil)
	var target struct{ ID string }
	if err := json.Unmarshal([]byte(body), &target); status != 200 || err != nil || target.ID == "" {
		t.Fatalf("json/new: %d %s", status, body)
	}

	dial := func(target string) int {
		conn, resp, err := websocket.DefaultDialer.Dial("ws://"+c.addr+"/sessions/s1/devtools/page/"+target,
			http.Header{"Authorization": {"Bearer " + secret}})
		if resp == nil {
			t.Fatal(err)
		}
		if conn != nil {
			_ = conn.Close()
		}
		return resp.StatusCode
	}
	if got := dial(target.ID); got != http.StatusSwitchingProtocols {
		t.Errorf("the socket of a target: %d", got)
	}
	if got := dial("0123456789ABCDEF"); got != http.StatusNotFound {
		t.Errorf("the socket of no target: %d", got)
	}

	t.Run("with settings of its own", func(t *testing.T) {
		w := create("s2", 2, wire.Limits{})
		w.Options = []byte(`{"userAgent":"Mine/2.0","locale":"de-CH","timezone":"Asia/Tokyo","viewport":{"width":900,"height":500}}`)
		o.order(w)
		o.notice(wire.SessionReady, "s2")
		got := evaluate(t, c, "s2", `[navigator.userAgent, navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone, window.innerWidth].join()`)
		if got != "Mine/2.0,de-CH,Asia/Tokyo,900" {
			t.Errorf("the page sees %q", got)
		}
		o.order(wire.Order{Type: wire.DestroySession, SessionID: "s2"})
		o.notice(wire.SessionEnded, "s2")
	})
	if got := evaluate(t, c, "s1", `[window.innerWidth, window.innerHeight].join()`); got != "1288,711" {
		t.Errorf("the default viewport is %s", got)
	}

	t.Run("killed", func(t *testing.T) {
		began := time.Now()
		group := profileOf(t, c, "s1")
		for _, pid := range browsers(t, group) {
			kill(t, pid)
		}
		if got := cl.closed(); got.Code != 1011 || got.Text != "browser_crashed" || time.Since(began) > 2*time.Second {
			t.Errorf("client was told %+v after %s", got, time.Since(began))
		}
		if n := o.notice(wire.SessionEnded, "s1"); n.Reason != "browser_crashed" {
			t.Errorf("notice %+v", n)
		}
		if left := anyOf(t, group); len(left) > 0 {
			t.Errorf("processes left: %v", left)
		}
	})
	t.Run("closed by its client", func(t *testing.T) {
		o.session("s3", 3, wire.Limits{KeepAlive: true})
		_ = c.connect("s3").WriteMessage(websocket.TextMessage, []byte(`{"id":1,"method":"Browser.close"}`))
		if n := o.notice(wire.SessionEnded, "s3"); n.Reason != "released" {
			t.Errorf("notice %+v", n)
		}
	})
}

// evaluate runs a script in a new page of the session.
func evaluate(t *testing.T, c *container, id, script string) string {
	t.Helper()
	cl := c.connect(id)
	call := func(session, method string, params any) map[string]any {
		text, _ := json.Marshal(map[string]any{"id": 9, "sessionId": session, "method": method, "params": params})
		if session == "" {
			text, _ = json.Marshal(map[string]any{"id": 9, "method": method, "params": params})
		}
		answer := cl.ask(string(text))
		for {
			var m struct {
				ID     int
				Result map[string]any
			}
			if err := json.Unmarshal([]byte(answer), &m); err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			if m.ID == 9 {
				return m.Result
			}
			_, next, err := cl.ReadMessage()
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			answer = string(next)
		}
	}
	target := call("", "Target.createTarget", map[string]any{"url": "about:blank"})
	attached := call("", "Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})
	result := call(attached["sessionId"].(string), "Runtime.evaluate", map[string]any{"expression": script})
	value, _ := result["result"].(map[string]any)
	got, _ := value["value"].(string)
	return got
}

// profileOf gives the directory of the browser that serves a session, by asking it.
func profileOf(t *testing.T, c *container, id string) string {
	t.Helper()
	cl := c.connect(id)
	var answer struct {
		Result struct {
			ProcessInfo []struct {
				ID   int
				Type string
			}
		}
	}
	if err := json.Unmarshal([]byte(cl.ask(`{"id":1,"method":"SystemInfo.getProcessInfo"}`)), &answer); err != nil {
		t.Fatal(err)
	}
	for _, p := range answer.Result.ProcessInfo {
		if p.Type == "browser" {
			// Chromium joins its arguments by spaces.
			_, after, _ := bytes.Cut(processes(t)[p.ID], []byte("--user-data-dir="))
			if dir, _, ok := bytes.Cut(after, []byte("/profile")); ok {
				return string(dir)
			}
		}
	}
	t.Fatalf("no browser process in %+v", answer)
	return ""
}
