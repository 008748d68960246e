package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dev is one `wallcrawler dev` of a user of its own.
type dev struct {
	process  *process
	addr     string
	tmp      string // everything temporary of it and of its children
	remember string // the file by which other commands find it
	env      []string
	user     caller
}

var keyLine = regexp.MustCompile(`(?m)^\s+API key\s+(\S+)$`)

// startDev starts dev and waits until it has said where things are.
func startDev(t *testing.T, args ...string) *dev {
	t.Helper()
	d := prepareDev(t)
	d.process = start(t, program{name: "wallcrawler dev", path: suite.binary, env: d.env,
		args: append([]string{"dev", "--listen", d.addr}, args...)})
	// "Within a second" is for the program as it is shipped; this one carries the race
	// detector, and other tests run beside it.
	eventually(t, 5*time.Second, "dev says where things are", func() error {
		found := keyLine.FindStringSubmatch(d.process.stdout.String())
		if found == nil || !d.process.stdout.contains("http://"+d.addr) {
			return errors.New("it has printed " + d.process.stdout.String())
		}
		d.user = caller{"http://" + d.addr, found[1]}
		return nil
	})
	return d
}

// prepareDev makes a user with an empty home.
func prepareDev(t *testing.T) *dev {
	t.Helper()
	home, tmp := t.TempDir(), t.TempDir()
	cache := filepath.Join(home, "cache")
	return &dev{
		addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t))), tmp: tmp,
		remember: filepath.Join(cache, "wallcrawler", "dev.json"),
		env:      []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_CACHE_HOME=" + cache, "TMPDIR=" + tmp},
	}
}

// awaitBrowser waits for the connect URL that dev prints.
func (d *dev) awaitBrowser(t *testing.T) (connectURL string) {
	t.Helper()
	eventually(t, 30*time.Second, "dev has a browser", func() error {
		if d.process.ended() {
			t.Fatal("dev has ended")
		}
		for line := range strings.Lines(d.process.stdout.String()) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "ws://"+d.addr+"/") && d.process.stdout.contains("Ctrl-C ends everything.") {
				connectURL = line
				return nil
			}
		}
		return errors.New("no connect URL yet")
	})
	return connectURL
}

// run runs another command of the same user, which must succeed.
func (d *dev) run(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := output(t, program{name: "wallcrawler " + strings.Join(args, " "), path: suite.binary, args: args, env: d.env}, 30*time.Second)
	if code != 0 {
		t.Fatalf("wallcrawler %s has ended with status %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// snippet gives the line that dev has printed and that begins so.
func (d *dev) snippet(t *testing.T, begin string) string {
	t.Helper()
	for line := range strings.Lines(d.process.stdout.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begin) {
			return line
		}
	}
	t.Fatalf("dev has printed no line that begins with %s", begin)
	return ""
}

// paste runs a snippet as a person would.
func (d *dev) paste(t *testing.T, line string) string {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := output(t, program{name: "the snippet", path: shell, args: []string{"-c", line}, dir: suite.clients, env: d.env}, 60*time.Second)
	if code != 0 {
		t.Fatalf("the snippet has ended with status %d: %s\n%s", code, stderr, line)
	}
	return stdout
}

func TestDevIsTheWholeSystemOnOneMachine(t *testing.T) {
	d := startDev(t)
	connectURL := d.awaitBrowser(t)

	t.Run("its address and key are for its user alone", func(t *testing.T) {
		info, err := os.Stat(d.remember)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %s", d.remember, info.Mode())
		}
	})

	t.Run("the printed snippets work when pasted", func(t *testing.T) {
		for _, library := range []string{"playwright-core", "puppeteer-core"} {
			if got := strings.TrimSpace(d.paste(t, d.snippet(t, `node -e "require('`+library))); got != "hello" {
				t.Errorf("the snippet for %s printed %q", library, got)
			}
		}
		var created session
		if err := json.Unmarshal([]byte(d.paste(t, d.snippet(t, "curl "))), &created); err != nil || created.ConnectURL == "" {
			t.Fatalf("curl created %+v: %v", created, err)
		}
		dialCDP(t, created.ConnectURL).alive(t)
		dialCDP(t, connectURL).alive(t)
	})

	t.Run("the other commands find it by themselves", func(t *testing.T) {
		var created map[string]any
		if err := json.Unmarshal([]byte(d.run(t, "session", "create", "--json")), &created); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"id", "connectUrl", "token", "expiresAt"} {
			if text, _ := created[field].(string); text == "" {
				t.Errorf("session create --json has no %s", field)
			}
		}
		id, _ := created["id"].(string)
		if list := d.run(t, "session", "list"); !strings.Contains(list, id) {
			t.Errorf("session list does not show %s:\n%s", id, list)
		}
		if one := d.run(t, "session", "get", id); !strings.Contains(one, "RUNNING") {
			t.Errorf("session get shows\n%s", one)
		}
		token := strings.TrimSpace(d.run(t, "token", id))
		dialCDP(t, "ws://"+d.addr+"/sessions/"+id+"/ws?token="+token).alive(t)
		if _, a, err := tryCDP(t, "ws://"+d.addr+"/sessions/"+id+"/ws", "Authorization", "Bearer "+token); err != nil {
			t.Errorf("the token is refused in the header: %v: %s", err, a.body)
		}

		var containers []container
		if err := json.Unmarshal([]byte(d.run(t, "container", "list", "--json")), &containers); err != nil || len(containers) == 0 {
			t.Errorf("container list --json gave %+v: %v", containers, err)
		}
		tasks := d.run(t, "task", "list")
		for _, c := range containers {
			if !strings.Contains(tasks, c.ID) {
				t.Errorf("task list does not show the task of %s:\n%s", c.ID, tasks)
			}
		}
		if plan := d.run(t, "plan"); !strings.Contains(plan, "slots: ") {
			t.Errorf("plan printed\n%s", plan)
		}
		eventually(t, 10*time.Second, "events tell of the launch", func() error {
			if events := d.run(t, "events"); !strings.Contains(events, "registered") || !strings.Contains(events, containers[0].ID) {
				return errors.New(events)
			}
			return nil
		})
		var event struct{ ID, Object, Reason, Message string }
		if line, _, _ := strings.Cut(d.run(t, "events", "--json", "--object", containers[0].ID), "\n"); json.Unmarshal([]byte(line), &event) != nil ||
			event.Object != containers[0].ID || event.ID == "" || event.Message == "" {
			t.Errorf("events --json --object printed %s", line)
		}
		if config := d.run(t, "config"); !strings.Contains(config, "REDIS_ENDPOINT") {
			t.Errorf("config printed\n%s", config)
		}

		elsewhere := prepareDev(t)
		elsewhere.env = append(elsewhere.env, "WALLCRAWLER_SERVER="+d.user.url, "WALLCRAWLER_API_KEY="+d.user.key)
		if list := elsewhere.run(t, "session", "list"); !strings.Contains(list, id) {
			t.Errorf("another user, told where it is, does not see %s:\n%s", id, list)
		}

		d.run(t, "session", "end", id)
		d.user.awaitEnd(t, 10*time.Second, id, "released")
		_, stderr, code := output(t, program{name: "session get", path: suite.binary, args: []string{"session", "get", "ses_nobody"}, env: d.env}, 30*time.Second)
		if code != 1 || !strings.Contains(stderr, "there is no such session") {
			t.Errorf("getting an unknown session ended with status %d: %s", code, stderr)
		}
	})

	t.Run("Ctrl-C leaves nothing", func(t *testing.T) {
		client := dialCDP(t, connectURL)
		client.alive(t)
		d.process.signal(t, os.Interrupt)
		if code := d.process.awaitExit(t, 15*time.Second); code != 0 {
			t.Errorf("dev has ended with status %d", code)
		}
		client.wantClose(t, time.Second, 1012, "replica draining: connect again")
		noneOf(t, 0, d.tmp)
		emptyDir(t, d.tmp)
		if _, err := os.Stat(d.remember); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", d.remember, err)
		}
		l, err := net.Listen("tcp", d.addr)
		if err != nil {
			t.Fatalf("its port is still taken: %v", err)
		}
		_ = l.Close()
		_, stderr, code := output(t, program{name: "session list", path: suite.binary, args: []string{"session", "list"}, env: d.env}, 30*time.Second)
		if code != 1 || !strings.Contains(stderr, "wallcrawler dev") {
			t.Errorf("without a dev, session list ended with status %d: %s", code, stderr)
		}
	})
}

func TestDevKilledLeavesNoBrowser(t *testing.T) {
	d := startDev(t)
	client := dialCDP(t, d.awaitBrowser(t))
	browser := client.browserPid(t)
	if len(processesOf(d.tmp)) < 3 { // dev, an agent, a browser
		t.Fatalf("the processes of dev are not found: %v", processesOf(d.tmp))
	}
	if err := d.process.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	noneOf(t, 5*time.Second, d.tmp)
	if err := syscall.Kill(browser, 0); !errors.Is(err, syscall.ESRCH) && !zombie(browser) {
		t.Errorf("the browser lives on: %v", err)
	}
}

// zombie tells whether the process has ended and only waits to be reaped, by whoever adopted it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestDevSaysWhatIsMissing(t *testing.T) {
	t.Run("Chromium", func(t *testing.T) {
		d := prepareDev(t)
		env := slices.Concat([]string{"PATH="}, d.env[1:])
		stdout, stderr, code := output(t, program{name: "dev without Chromium", path: suite.binary, env: env,
			args: []string{"dev", "--listen", d.addr, "--browser", "/nonexistent"}}, 20*time.Second)
		if code != 1 || !strings.Contains(stderr, "/nonexistent") || !strings.Contains(stderr, "apt-get install chromium-headless-shell") {
			t.Errorf("status %d: %s%s", code, stdout, stderr)
		}
		emptyDir(t, d.tmp)
	})

	t.Run("its port", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		d := prepareDev(t)
		_, stderr, code := output(t, program{name: "dev on a busy port", path: suite.binary, env: d.env,
			args: []string{"dev", "--listen", taken.Addr().String()}}, 20*time.Second)
		if code != 1 || !strings.Contains(stderr, taken.Addr().String()) || !strings.Contains(stderr, "--listen") {
			t.Errorf("status %d: %s", code, stderr)
		}
		emptyDir(t, d.tmp)
	})
}

// A requester that knows nothing of the API: it writes documents into Redis, and reads them.
func TestForeignDocuments(t *testing.T) {
	redis := startRedis(t, "")
	d := startDev(t, "--redis", redis.addr, "--api-key", "a-key-of-the-user")
	d.awaitBrowser(t)
	if d.user.key != "a-key-of-the-user" {
		t.Errorf("dev goes by the key %q", d.user.key)
	}
	ctx := t.Context()
	set := func(t *testing.T, key, text string, ttl time.Duration) {
		t.Helper()
		if err := redis.client.Do(ctx, "SETEX", key, int(ttl.Seconds()), text).Err(); err != nil {
			t.Fatal(err)
		}
	}
	document := func(id, status string) string {
		return fmt.Sprintf(`{ "sessionId":%q,"userId":"u","status":%q, "createdAt":"2026-01-02T03:04:05.000Z","timeout":600000,`+
			`"big":9007199254740993,"empty":[],"nested":{"z":1,"a":[ 1.50, null ]}, "text":"<&> ü"}`, id, status)
	}

	t.Run("one becomes a browser, keeps its own bytes and its TTL, and ends when it says so", func(t *testing.T) {
		const id, key = "ses_foreign", "session:ses_foreign"
		set(t, key, document(id, "pending"), 600*time.Second)
		eventually(t, 15*time.Second, "the document is ready", func() error {
			if text := redis.get(t, key); !strings.Contains(text, `"ready"`) {
				return errors.New(text)
			}
			return nil
		})
		// What is ours to write may change or come to the end; every other byte stays.
		text := redis.get(t, key)
		before, after, _ := strings.Cut(document(id, "pending"), `"pending"`)
		if !strings.HasPrefix(text, before+`"ready"`+strings.TrimSuffix(after, "}")) {
			t.Errorf("the document was changed:\n%s\nto\n%s", document(id, "pending"), text)
		}
		if ttl := redis.client.TTL(ctx, key).Val(); ttl > 600*time.Second || ttl < 500*time.Second {
			t.Errorf("its TTL is %s", ttl)
		}
		if kind := redis.client.Type(ctx, key).Val(); kind != "string" {
			t.Errorf("its type is %s", kind)
		}
		set(t, key, document(id, "terminated"), 300*time.Second)
		d.awaitGone(t, redis, id)
		if text := redis.get(t, key); text != document(id, "terminated") {
			t.Errorf("the final document was changed to %s", text)
		}
	})

	t.Run("one that vanishes before its time is written again", func(t *testing.T) {
		const id, key = "ses_vanishing", "session:ses_vanishing"
		set(t, key, document(id, "pending"), 600*time.Second)
		d.awaitPhase(t, redis, id, "ready")
		if err := redis.client.Del(ctx, key).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "the document is back", func() error {
			text, err := redis.client.Get(ctx, key).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(text, `"big":9007199254740993`) {
				return errors.New(text)
			}
			return nil
		})
		if ttl := redis.client.TTL(ctx, key).Val(); ttl > 600*time.Second || ttl < 500*time.Second {
			t.Errorf("its TTL is %s", ttl)
		}
		if phase := redis.client.HGet(ctx, controlKey(id), "phase").Val(); phase != "ready" {
			t.Errorf("the session is %s", phase)
		}
		set(t, key, document(id, "cleaned"), 300*time.Second)
		d.awaitGone(t, redis, id)
	})

	t.Run("poisoned values stop nothing", func(t *testing.T) {
		poison := map[string]string{
			"session:ses_text": "not JSON", "session:ses_half": `{"sessionId":"ses_half","sta`, "session:ses_list": `[1,2]`,
			"session:ses_types": `{"sessionId":"ses_types","userId":7,"status":"pending"}`, "session:ses_empty": "",
			"session:ses_liar": `{"sessionId":"ses_other","userId":"u","status":"pending"}`, "session:../up": document("../up", "pending"),
		}
		for key, text := range poison {
			set(t, key, text, 600*time.Second)
		}
		if err := redis.client.HSet(ctx, "session:ses_hash", "a", "b").Err(); err != nil {
			t.Fatal(err)
		}
		if err := redis.client.RPush(ctx, "session:ses_queue", "a").Err(); err != nil {
			t.Fatal(err)
		}
		// All of it was seen when what came after it is ready.
		for _, id := range []string{"ses_after1", "ses_after2"} {
			set(t, "session:"+id, document(id, "pending"), 600*time.Second)
			d.awaitPhase(t, redis, id, "ready")
		}
		plan := d.run(t, "plan")
		for _, id := range []string{"ses_text", "ses_list", "ses_types", "ses_liar", "ses_hash", "ses_queue"} {
			if !strings.Contains(plan, id) {
				t.Errorf("plan does not tell of %s:\n%s", id, plan)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(poison)) {
			if text := redis.get(t, key); text != poison[key] {
				t.Errorf("%s was changed to %q", key, text)
			}
			if n := redis.client.Exists(ctx, controlKey(strings.TrimPrefix(key, "session:"))).Val(); n != 0 {
				t.Errorf("%s was taken for a session", key)
			}
		}
		if value := redis.client.HGet(ctx, "session:ses_hash", "a").Val(); value != "b" {
			t.Error("the hash was changed")
		}
	})
}

// controlKey is where dev keeps the status of a session.
func controlKey(id string) string { return "wallcrawler:{dev}:session:" + id }

// awaitPhase waits for the status that dev keeps.
func (d *dev) awaitPhase(t *testing.T, redis *redisServer, id, phase string) {
	t.Helper()
	eventually(t, 20*time.Second, id+" is "+phase, func() error {
		fields, err := redis.client.HGetAll(t.Context(), controlKey(id)).Result()
		if err == nil && fields["phase"] != phase {
			err = &unexpected{"phase", fmt.Sprintf("%q: %v", fields["phase"], fields)}
		}
		return err
	})
}

// awaitGone waits until a session has ended because its document said so. It is only ended
// once its container has said that the browser is gone.
func (d *dev) awaitGone(t *testing.T, redis *redisServer, id string) {
	t.Helper()
	d.awaitPhase(t, redis, id, "ended")
	if reason := redis.client.HGet(t.Context(), controlKey(id), "reason").Val(); reason != "released" {
		t.Errorf("%s has ended for %q", id, reason)
	}
}
