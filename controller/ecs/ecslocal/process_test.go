package ecslocal_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
)

func TestAProcessSeesItsOwnEnvironmentAndNothingOfOurs(t *testing.T) {
	t.Setenv("OUR_SECRET", "canary")
	t.Setenv("WANTED", "inherited")
	dir := t.TempDir()
	cfg := of(shell(`env > "$OUT.part"; mv "$OUT.part" "$OUT"; exec sleep 100`, "OUT="+filepath.Join(dir, "env"), "PLACE=definition"))
	cfg.InheritEnv = []string{"WANTED"}
	_, c := local(t, cfg)
	in := request()
	in.Overrides = &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{
		Name: aws.String("BrowserContainer"),
		Environment: []types.KeyValuePair{
			{Name: aws.String("CONTAINER_ID"), Value: aws.String("cnt_1")},
			{Name: aws.String("PLACE"), Value: aws.String("override")},
			{Name: aws.String("ECS_CONTAINER_METADATA_URI_V4"), Value: aws.String("http://elsewhere")},
		},
	}}}
	task := run(t, c, in)
	env := map[string]string{}
	for line := range strings.Lines(content(t, filepath.Join(dir, "env"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	if env["OUR_SECRET"] != "" {
		t.Error("the task sees a variable of this process that was not named")
	}
	for name, want := range map[string]string{"CONTAINER_ID": "cnt_1", "PLACE": "override", "WANTED": "inherited", "AWS_REGION": "us-east-1", "PATH": os.Getenv("PATH")} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}

	running := reach(t, c, task.TaskArn, "RUNNING")
	addr := *running.Containers[0].NetworkInterfaces[0].PrivateIpv4Address
	var meta struct {
		Cluster, TaskARN, Family, Revision, DesiredStatus, KnownStatus, AvailabilityZone string

		Containers []struct {
			Networks []struct{ IPv4Addresses []string }
		}
	}
	getJSON(t, env["ECS_CONTAINER_METADATA_URI_V4"]+"/task", &meta)
	if meta.TaskARN != *task.TaskArn || meta.Cluster != *task.ClusterArn || meta.Family != family || meta.Revision != "1" || meta.KnownStatus != "RUNNING" {
		t.Errorf("metadata is of another task: %+v", meta)
	}
	if got := meta.Containers[0].Networks[0].IPv4Addresses; !slices.Equal(got, []string{addr}) {
		t.Errorf("metadata gives the addresses %v, ECS gives %s", got, addr)
	}
	var container struct{ Name string }
	getJSON(t, env["ECS_CONTAINER_METADATA_URI_V4"], &container)
	if container.Name != "BrowserContainer" {
		t.Errorf("the container's metadata names it %q", container.Name)
	}
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		t.Fatalf("GET %s: %d: %v", url, r.StatusCode, err)
	}
}

func TestAProcessThatEndsByItselfEndsItsTask(t *testing.T) {
	_, c := local(t, of(shell("exit 7")))
	task := reach(t, c, run(t, c, request()).TaskArn, "STOPPED")
	if task.StopCode != types.TaskStopCodeEssentialContainerExited || aws.ToInt32(task.Containers[0].ExitCode) != 7 {
		t.Errorf("stop code %s with exit code %d, want EssentialContainerExited with 7", task.StopCode, aws.ToInt32(task.Containers[0].ExitCode))
	}
	if *task.DesiredStatus != "STOPPED" || task.StoppedAt == nil || task.ExecutionStoppedAt == nil {
		t.Errorf("a stopped task wants to be %s, stopped at %v", *task.DesiredStatus, task.StoppedAt)
	}
}

func TestACommandThatCannotStartFailsItsTask(t *testing.T) {
	_, c := local(t, of(ecslocal.Definition{Command: []string{"/nowhere/browser"}}))
	task := reach(t, c, run(t, c, request()).TaskArn, "STOPPED")
	if task.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.Contains(*task.StoppedReason, "/nowhere/browser") {
		t.Errorf("stop code %s, reason %q", task.StopCode, aws.ToString(task.StoppedReason))
	}
	if task.StartedAt != nil {
		t.Error("it says that it started")
	}
}

func TestStopIsSIGTERMThenSIGKILL(t *testing.T) {
	dir := t.TempDir()
	deaf := shell(`trap 'echo asked >> "$OUT"' TERM; echo up >> "$OUT"; while :; do sleep 0.01; done`, "OUT="+filepath.Join(dir, "deaf"))
	deaf.StopTimeout = 200 * time.Millisecond
	polite := shell(`trap 'exit 3' TERM; echo up > "$OUT"; while :; do sleep 0.01; done`, "OUT="+filepath.Join(dir, "polite"))
	_, c := local(t, ecslocal.Config{Definitions: map[string]ecslocal.Definition{"deaf": deaf, "polite": polite}})
	for name, code := range map[string]int32{"deaf": 137, "polite": 3} {
		in := request()
		in.TaskDefinition = aws.String(name)
		in.Tags = []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
		task := run(t, c, in)
		content(t, filepath.Join(dir, name))
		if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn, Reason: aws.String("no more need")}); err != nil {
			t.Fatal(err)
		}
		task = reach(t, c, task.TaskArn, "STOPPED")
		if got := aws.ToInt32(task.Containers[0].ExitCode); got != code {
			t.Errorf("%s exited with %d, want %d", name, got, code)
		}
		if task.StopCode != types.TaskStopCodeUserInitiated || *task.StoppedReason != "no more need" {
			t.Errorf("%s: stop code %s, reason %q", name, task.StopCode, *task.StoppedReason)
		}
		if len(task.Tags) != 0 {
			t.Errorf("%s: StopTask left the tags %v", name, task.Tags)
		}
	}
	if text := content(t, filepath.Join(dir, "deaf")); !strings.Contains(text, "asked") {
		t.Error("the deaf one was killed without having been asked")
	}
}

// What a task has started ends with it, wherever it has moved: into another group, another session.
func TestTheEndOfATaskIsTheEndOfAllItStarted(t *testing.T) {
	dir := t.TempDir()
	script := `
		sh -c 'echo $$ > "$DIR/child"; exec sleep 1000' &
		set -m; sh -c 'echo $$ > "$DIR/group"; exec sleep 1000' & set +m
		setsid sh -c 'echo $$ > "$DIR/session"; exec sleep 1000' &
		echo $$ > "$DIR/self"; wait`
	s, c := local(t, of(shell(script, "DIR="+dir)))
	kinds := []string{"self", "child", "group"}
	if runtime.GOOS == "linux" {
		kinds = append(kinds, "session")
	}
	for name, end := range map[string]func(types.Task){
		"stopped": func(task types.Task) {
			if _, err := c.StopTask(t.Context(), &ecs.StopTaskInput{Task: task.TaskArn}); err != nil {
				t.Fatal(err)
			}
		},
		"killed": func(task types.Task) {
			pid, ok := s.Pid(*task.TaskArn)
			if !ok {
				t.Fatal("a running task has no process")
			}
			p, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		task := run(t, c, request())
		pids := map[string]string{}
		for _, kind := range kinds {
			pids[kind] = content(t, filepath.Join(dir, kind))
		}
		reach(t, c, task.TaskArn, "RUNNING")
		end(task)
		reach(t, c, task.TaskArn, "STOPPED")
		for kind, pid := range pids {
			if alive(t, pid) {
				t.Errorf("%s: process %s (%s) outlives its task", name, pid, kind)
			}
			if err := os.Remove(filepath.Join(dir, kind)); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := s.Pid(*task.TaskArn); ok {
			t.Errorf("%s: a stopped task has a process", name)
		}
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	out := t.TempDir()
	deaf := shell(`trap '' TERM; echo junk > "$TMPDIR/junk"; sleep 1000 & echo $! > "$OUT/$CONTAINER_ID"; while :; do sleep 0.01; done`, "OUT="+out)
	deaf.StopTimeout = time.Hour
	s, c := local(t, of(deaf))
	var pids []string
	for _, id := range []string{"a", "b", "c"} {
		in := request()
		in.Overrides = &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{
			Name: aws.String("BrowserContainer"), Environment: []types.KeyValuePair{{Name: aws.String("CONTAINER_ID"), Value: aws.String(id)}},
		}}}
		task := run(t, c, in)
		pids = append(pids, content(t, filepath.Join(out, id)))
		reach(t, c, task.TaskArn, "RUNNING")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(t, pid) {
			t.Errorf("process %s is left", pid)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://")); err == nil {
		_ = conn.Close()
		t.Error("the endpoint still listens")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestOutputComesInWholeLines(t *testing.T) {
	lines := newLineRecorder()
	d := shell(`for i in 1 2 3 4 5 6 7 8 9 10; do echo "line of $$"; echo "trouble of $$" >&2; done`)
	d.Stdout, d.Stderr = lines, lines
	_, c := local(t, of(d))
	in := request()
	in.Count = aws.Int32(4)
	out, err := c.RunTask(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range out.Tasks {
		reach(t, c, task.TaskArn, "STOPPED")
	}
	if n := lines.count(t); n != 80 {
		t.Errorf("got %d lines, want 80", n)
	}
}

// lineRecorder is not safe for concurrent use, as a Definition's writer need not be; the race
// detector watches.
type lineRecorder struct{ writes []string }

func newLineRecorder() *lineRecorder { return &lineRecorder{} }

func (l *lineRecorder) Write(p []byte) (int, error) {
	l.writes = append(l.writes, string(p))
	return len(p), nil
}

func (l *lineRecorder) count(t *testing.T) int {
	t.Helper()
	for _, w := range l.writes {
		if strings.Count(w, "\n") != 1 || !strings.HasSuffix(w, "\n") {
			t.Errorf("not a whole line: %q", w)
		}
	}
	return len(l.writes)
}

// The endpoint is killed with no chance to clean up. Its task reads EOF and can end by itself.
func TestATaskReadsEOFWhenTheEndpointIsKilled(t *testing.T) {
	const role = "ECSLOCAL_TEST_ENDPOINT"
	if out := os.Getenv(role); out != "" {
		s, err := ecslocal.Start(of(shell(`[ -p /dev/stdin ] || exit 1; echo $$ > "$OUT"; cat > /dev/null; echo gone > "$OUT.eof"`, "OUT="+out)))
		if err != nil {
			t.Fatal(err)
		}
		run(t, clientOf(s.URL()), request())
		select {} // until killed
	}
	out := filepath.Join(t.TempDir(), "pid")
	tmp := t.TempDir()
	endpoint := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	endpoint.Env = append(os.Environ(), role+"="+out, "TMPDIR="+tmp)
	if err := endpoint.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kill := func() {
		once.Do(func() {
			_ = endpoint.Process.Kill()
			_ = endpoint.Wait()
		})
	}
	t.Cleanup(kill)
	pid := content(t, out)
	if !alive(t, pid) {
		t.Fatal("the task ended before its time")
	}
	kill()
	if got := content(t, out+".eof"); got != "gone" {
		t.Errorf("the task wrote %q", got)
	}
	until(t, "the end of the task", func() bool { return !alive(t, pid) })

	// What it has left lies there until another endpoint finds it, which spares what is new
	// and what is in use.
	t.Setenv("TMPDIR", tmp)
	left := func() int { dirs, _ := filepath.Glob(filepath.Join(tmp, "*")); return len(dirs) }
	local(t, of(idle()))
	if n := left(); n != 2 {
		t.Errorf("%d directories after the start of a second endpoint, want the old one's and its own", n)
	}
	dirs, _ := filepath.Glob(filepath.Join(tmp, "*"))
	for _, dir := range dirs {
		long := time.Now().Add(-time.Hour)
		if err := os.Chtimes(dir, long, long); err != nil {
			t.Fatal(err)
		}
	}
	local(t, of(idle()))
	if n := left(); n != 2 {
		t.Errorf("%d directories after the start of a third endpoint, want those of the two that live", n)
	}
}
