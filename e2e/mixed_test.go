package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// firstMixed is the commit that HEAD must get along with while there is no tag: the last one
// before releases were prepared.
const firstMixed = "f6a520f"

// earlier builds an earlier commit of this program in a worktree: what WALLCRAWLER_MIXED_FROM
// names, else the last tag before HEAD, else firstMixed.
func earlier(t *testing.T) (binary, commit string) {
	t.Helper()
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	commit = os.Getenv("WALLCRAWLER_MIXED_FROM")
	asked := commit != ""
	if !asked {
		if tag, err := git("describe", "--tags", "--abbrev=0", "HEAD^"); err == nil {
			commit = tag
		} else {
			commit = firstMixed
		}
	}
	if out, err := git("cat-file", "-e", commit+"^{commit}"); err != nil {
		if asked {
			t.Fatalf("%s is no commit here: %s", commit, out)
		}
		t.Skipf("NOT TESTED: whether replicas of the version before get along with this one. The history that has %s is not here "+
			"(a shallow clone, or no git): run `git fetch --unshallow --tags`, then `make mixed`", commit)
	}
	source := filepath.Join(t.TempDir(), "source")
	if out, err := git("worktree", "add", "--quiet", "--detach", source, commit); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("git", "worktree", "remove", "--force", source).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	binary = filepath.Join(t.TempDir(), "wallcrawler-earlier")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-X main.version="+commit, "-o", binary, "./cmd/wallcrawler")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", commit, err, out)
	}
	return binary, commit
}

// TestMixedVersions rolls an upgrade and a way back: an earlier version and this one are
// replicas of one service, on one Redis, with containers of the earlier one. Sessions that were made
// through one are driven through the other, and outlive the replica that they were made at.
func TestMixedVersions(t *testing.T) {
	old, commit := earlier(t)
	ports := []int{freePort(t), freePort(t)}
	balancer := startBalancer(t, ports)
	s := newService(t, serviceOptions{agent: []string{old, "agent"}, env: map[string]string{
		"REGISTER_URL": "http://" + balancer.listener.Addr().String(), "MIN_CONTAINERS": "1", "MAX_CONTAINERS": "2",
		"DISCONNECT_GRACE": "2m", "DRAIN_UNREADY": "500ms", "DRAIN_TIMEOUT": "1s",
	}})
	run := func(binary, name string, port int) *replica {
		r := startReplicaOf(t, binary, s, name, port)
		r.awaitReady(t)
		return r
	}
	through := func(r *replica) caller { return caller{r.url(), s.alice.key} }
	// connect takes a session's URL, which names one replica, to another.
	connect := func(r *replica, created session) *cdp {
		_, path, _ := strings.Cut(strings.TrimPrefix(created.ConnectURL, "ws://"), "/")
		var client *cdp
		eventually(t, time.Minute, "a client is let in by "+r.name, func() error {
			c, a, err := tryCDP(t, "ws://"+strings.TrimPrefix(r.url(), "http://")+"/"+path)
			if err != nil {
				return errors.Join(err, errors.New(string(a.body)))
			}
			client = c
			return nil
		})
		client.alive(t)
		return client
	}
	mark := func(c *cdp, text string) {
		c.must(t, "Target.createTarget", map[string]any{"url": "data:text/html," + text}, nil)
	}
	marked := func(c *cdp, text string) {
		t.Helper()
		eventually(t, 30*time.Second, "the page "+text+" is there", func() error {
			pages := strings.Join(c.pages(t), " ")
			if !strings.Contains(pages, text) {
				return errors.New("there are " + pages)
			}
			return nil
		})
	}
	stop := func(r *replica) {
		r.signal(t, syscall.SIGTERM)
		if code := r.awaitExit(t, time.Minute); code != 0 {
			t.Errorf("%s has ended with status %d", r.name, code)
		}
	}

	before := run(old, "before", ports[0])
	s.url, s.alice.url = before.url(), before.url()
	s.awaitContainer(t)
	first := through(before).create(t, nil)
	driver := connect(before, first)
	mark(driver, "made-before")

	// The new version comes beside the old one, which leads and has the link.
	after := run(suite.binary, "after", ports[1])
	second := through(after).create(t, nil)
	crossed := connect(before, second)
	mark(crossed, "made-after")
	crossing := connect(after, first)
	marked(crossing, "made-before")
	driver.alive(t)
	crossing.leave(t)

	// The old one goes: its clients are told, and find their pages through the new one.
	stop(before)
	for _, c := range []*cdp{driver, crossed} {
		select {
		case <-c.closed:
		case <-time.After(time.Minute):
			t.Fatal("a client of the replica that left is still joined to it")
		}
	}
	s.url, s.alice.url = after.url(), after.url()
	driver, crossed = connect(after, first), connect(after, second)
	marked(driver, "made-before")
	marked(crossed, "made-after")
	third := through(after).create(t, nil) // it leads now
	connect(after, third).leave(t)

	// And back: the old version takes over what the new one has written.
	back := run(old, "back", ports[0])
	between := through(back).create(t, nil) // the new version leads, the old one follows
	connect(back, between).leave(t)
	connect(after, between).leave(t)
	stop(after)
	s.url, s.alice.url = back.url(), back.url()
	driver = connect(back, first)
	marked(driver, "made-before")
	fourth := through(back).create(t, nil)
	connect(back, fourth).leave(t)
	for _, one := range []session{first, second, third, between, fourth} {
		s.alice.release(t, one.ID)
		s.alice.awaitEnd(t, time.Minute, one.ID, "released")
	}
	stop(back)
	t.Logf("%s and this version share one Redis", commit)
}
