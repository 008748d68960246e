package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a child of the test. It is killed at the end of the test that started it.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr *buffer
	done           chan struct{} // closed when it has ended
}

// program says what to start.
type program struct {
	name string // for failures
	path string
	args []string
	env  []string // all of it
	dir  string
}

// start starts a process in a group of its own.
func start(t *testing.T, p program) *process {
	t.Helper()
	return startIn(t, p, &syscall.SysProcAttr{Setpgid: true})
}

// startIn starts a process, which must get a group of its own.
func startIn(t *testing.T, p program, attributes *syscall.SysProcAttr) *process {
	t.Helper()
	running := &process{name: p.name, cmd: exec.Command(p.path, p.args...), stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	running.cmd.Env, running.cmd.Dir = p.env, p.dir
	running.cmd.Stdout, running.cmd.Stderr = running.stdout, running.stderr
	running.cmd.SysProcAttr = attributes
	// What a killed child has left holds the pipes; that must not hang the test.
	running.cmd.WaitDelay = 10 * time.Second
	if err := running.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	go func() { // ends with the process, for which the cleanup waits
		defer close(running.done)
		_ = running.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-running.cmd.Process.Pid, syscall.SIGKILL)
		<-running.done
		if running.stderr.contains("DATA RACE") {
			t.Errorf("%s has a data race", p.name)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s\nand to stderr:\n%s", p.name, running.stdout.tail(), running.stderr.tail())
		}
	})
	return running
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("sending %s to %s: %v", s, p.name, err)
	}
}

// awaitExit waits for the end and gives the exit code.
func (p *process) awaitExit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("%s has not ended within %s", p.name, within)
		return -1
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output runs a program to its end and gives what it printed.
func output(t *testing.T, p program, within time.Duration) (stdout, stderr string, code int) {
	t.Helper()
	running := start(t, p)
	code = running.awaitExit(t, within)
	return running.stdout.String(), running.stderr.String(), code
}

// buffer collects what a process prints.
type buffer struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String implements fmt.Stringer.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *buffer) contains(text string) bool { return strings.Contains(b.String(), text) }

// tail is the end of it, enough to understand a failure.
func (b *buffer) tail() string {
	const most = 6000
	text := b.String()
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

// poll asks until the answer is yes or the time is up, and gives the last answer.
func poll(within time.Duration, done func() bool) bool {
	limit := time.NewTimer(within)
	defer limit.Stop()
	again := time.NewTicker(15 * time.Millisecond)
	defer again.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-again.C:
		case <-limit.C:
			return done()
		}
	}
}

// eventually fails the test unless check returns nil in time.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	var err error
	if !poll(within, func() bool { err = check(); return err == nil }) {
		t.Fatalf("%s: not within %s: %v", what, within, err)
	}
}

// processesOf lists the processes whose arguments or environment name the directory.
func processesOf(dir string) []string {
	var found []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // gone, or not ours
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if len(args) > 0 && (bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir))) {
			found = append(found, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(args[:min(len(args), 200)], []byte{0}, []byte{' '})))
		}
	}
	return found
}

// noneOf fails the test if processes of the directory remain.
func noneOf(t *testing.T, within time.Duration, dir string) {
	t.Helper()
	eventually(t, within, "every process is gone", func() error {
		if left := processesOf(dir); len(left) > 0 {
			return errors.New(strings.Join(left, "; "))
		}
		return nil
	})
}

// emptyDir fails the test if anything is in the directory.
func emptyDir(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in the temporary directory: %s", e.Name())
	}
}
