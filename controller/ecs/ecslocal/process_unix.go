//go:build unix

package ecslocal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// drainTimeout bounds the wait for the output of a process that has ended. Nobody should
	// hold the pipe any more; who does has escaped.
	drainTimeout = time.Second
	// killRounds bounds the hunt for what a process left behind, which may multiply meanwhile.
	killRounds = 20
)

// process is a task's child process, in a session and process group of its own.
type process struct {
	cmd    *exec.Cmd
	marker string // an entry of its environment that no other task has
	stdin  *os.File
	tmp    string
	output sync.WaitGroup
	pipes  []*os.File // the reading ends
	reaped atomic.Bool
	ended  chan struct{}
	code   int // set before ended is closed
}

// processSpec says what to start.
type processSpec struct {
	command        []string
	env            map[string]string
	stdout, stderr io.Writer
	scratch        string // where to make the directory for its files
}

// startProcess starts the command. The process gets SIGTERM alone, as a container's first
// process does; when it ends, all that it has started is killed, as a container's end does.
func startProcess(spec processSpec) (_ *process, err error) {
	path, err := absolute(spec.command[0])
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", spec.command[0], err)
	}
	p := &process{
		cmd:    exec.Command(path, spec.command[1:]...),
		marker: metadataVariable + "=" + spec.env[metadataVariable],
		ended:  make(chan struct{}),
	}
	var theirs []*os.File // closed here once the child has them
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			p.discard()
		}
	}()

	if p.tmp, err = os.MkdirTemp(spec.scratch, "task-"); err != nil {
		return nil, fmt.Errorf("making the task's temporary directory: %w", err)
	}
	for name, value := range spec.env {
		if name != "TMPDIR" {
			p.cmd.Env = append(p.cmd.Env, name+"="+value)
		}
	}
	p.cmd.Env = append(p.cmd.Env, "TMPDIR="+p.tmp)
	slices.Sort(p.cmd.Env)
	p.cmd.Dir = p.tmp

	stdin, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the task's standard input: %w", err)
	}
	p.stdin, p.cmd.Stdin = ours, stdin
	theirs = append(theirs, stdin)
	for _, out := range []struct {
		to  io.Writer
		set *io.Writer
	}{{spec.stdout, &p.cmd.Stdout}, {spec.stderr, &p.cmd.Stderr}} {
		if file, ok := out.to.(*os.File); ok || out.to == nil {
			if ok {
				*out.set = file
			}
			continue
		}
		from, child, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("making the task's standard output: %w", err)
		}
		*out.set = child
		theirs = append(theirs, child)
		p.pipes = append(p.pipes, from)
		p.output.Go(func() { copyLines(out.to, from) })
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a new session is a new group, too
	if err = p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", spec.command[0], err)
	}
	go p.wait() // ends with the process; Close waits for it by way of done
	return p, nil
}

// absolute finds the command as a shell would from here, since the task works elsewhere.
func absolute(command string) (string, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// wait reaps the process and clears up after it.
func (p *process) wait() {
	defer close(p.ended)
	state, err := p.cmd.Process.Wait()
	p.reaped.Store(true)
	p.code = 255
	if err == nil {
		p.code = state.ExitCode()
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			p.code = 128 + int(status.Signal())
		}
	}
	p.killStrays()
	p.discard()
}

// discard lets go of all that the process had from us.
func (p *process) discard() {
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	for _, pipe := range p.pipes {
		_ = pipe.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	p.output.Wait()
	for _, pipe := range p.pipes {
		_ = pipe.Close()
	}
	if p.tmp != "" {
		_ = os.RemoveAll(p.tmp) // what cannot be removed is the system's to clean
	}
}

// killStrays kills what is left of the process's group, its session and its environment.
func (p *process) killStrays() {
	pid := p.cmd.Process.Pid
	for range killRounds {
		group := syscall.Kill(-pid, syscall.SIGKILL)
		found, all := strays(pid, p.marker)
		for _, stray := range found {
			_ = syscall.Kill(stray, syscall.SIGKILL) // it may be gone by itself
		}
		// A group lasts as long as its zombies, and some machines never bury those.
		if errors.Is(group, syscall.ESRCH) || all {
			if len(found) == 0 {
				return
			}
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // until the kernel has taken them away
	}
}

func (p *process) pid() int              { return p.cmd.Process.Pid }
func (p *process) done() <-chan struct{} { return p.ended }
func (p *process) exitCode() int         { return p.code }

func (p *process) terminate() { _ = p.cmd.Process.Signal(syscall.SIGTERM) } // it may have ended just now

func (p *process) kill() {
	// The group's number is the process's, and nobody else's until that is reaped.
	if !p.reaped.Load() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// copyLines copies whole lines, so that those of several tasks do not mix.
func copyLines(to io.Writer, from io.Reader) {
	lines := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			_, _ = to.Write(line) // a log that is full must not stop the task
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
