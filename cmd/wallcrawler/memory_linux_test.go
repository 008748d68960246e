package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// childInGroup has this test's binary say what it has made of its control group.
const childInGroup = "WALLCRAWLER_TEST_MEMORY"

// A process in a control group with a limit, for real.
func TestMemoryIsLimitedByTheControlGroup(t *testing.T) {
	if os.Getenv(childInGroup) != "" {
		l := limitMemory()
		fmt.Fprintf(os.Stdout, "\nlimit %s %d %d %.0f\n", l.source, l.bytes, debug.SetMemoryLimit(-1), testutil.ToFloat64(l.collector()))
		return
	}
	group := newGroup(t, 1<<30)
	for name, c := range map[string]struct{ env, want string }{
		"the group's":       {"GOMEMLIMIT=", "cgroup 966367641"},
		"the environment's": {"GOMEMLIMIT=300MiB", "GOMEMLIMIT 314572800"},
		"none at all":       {"GOMEMLIMIT=off", "GOMEMLIMIT 9223372036854775807"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", `echo $$ > "$1/cgroup.procs" && shift && exec "$@"`, "sh", group,
				os.Args[0], "-test.run=^"+t.Name()[:strings.Index(t.Name(), "/")]+"$", "-test.v")
			cmd.Env = append(os.Environ(), childInGroup+"=1", c.env)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			number := c.want[strings.Index(c.want, " "):]
			shown := number
			if name == "none at all" {
				shown = " +Inf"
			}
			if want := "limit " + c.want + number + shown + "\n"; !strings.Contains(string(out), want) {
				t.Errorf("want %s, got %s", want, out)
			}
		})
	}
}

// newGroup makes a control group with a limit of memory below this process's.
func newGroup(t *testing.T, limit int64) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip("there are no control groups here:", err)
	}
	own := func(prefix string) string {
		for line := range strings.Lines(string(text)) {
			if _, path, ok := strings.Cut(strings.TrimSpace(line), prefix); ok {
				return path
			}
		}
		return "/"
	}
	name := "wallcrawler-test-" + strconv.Itoa(os.Getpid())
	for dir, file := range map[string]string{
		filepath.Join("/sys/fs/cgroup", own("0::"), name):             "memory.max",
		filepath.Join("/sys/fs/cgroup/memory", own(":memory:"), name): "memory.limit_in_bytes",
	} {
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue // a directory like any other
		}
		if os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0o600) == nil {
			return dir
		}
	}
	t.Skip("no control group with a limit of memory can be made here: it takes root, and a hierarchy that may be written to")
	return ""
}
